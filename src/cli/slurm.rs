//! `slurm`: writes, checks and submits the jobs of a plan.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use super::cluster_args::{EmitArg, SlurmArgs};
use super::worker::{Plan, SlurmJob};
use crate::console;
use crate::error::AtPath;
use crate::files::write_atomically;
use crate::{Error, Result};

/// Runs the command.
pub fn run(args: &SlurmArgs) -> anyhow::Result<()> {
    let plan = Plan::load(&args.plan)?;
    let job = Job::new(args, plan)?;
    if args.emit == EmitArg::Commands {
        if args.check {
            job.check()?;
        }
        return Ok(console::print(job.commands())?);
    }
    let scripts = job.write()?;
    console::tell(format_args!("{}\n{}\n", scripts.workers.display(), scripts.report.display()));
    if args.check || (args.submit && !args.no_check) {
        job.check()?;
    }
    if !args.submit {
        console::note(format_args!(
            "to submit: {} --submit",
            shell_words(["terrabench", "slurm", &args.plan.display().to_string()])
        ));
        return Ok(());
    }
    job.submit(&scripts)
}

/// A plan with everything that its jobs must know.
struct Job {
    plan: Plan,
    /// The plan's file.
    file: PathBuf,
    /// The folder that relative paths of the plan start from.
    folder: PathBuf,
    program: PathBuf,
    workers: usize,
}

/// The written scripts.
struct Scripts {
    /// The array of workers.
    workers: PathBuf,
    /// The job after them.
    report: PathBuf,
}

impl Job {
    fn new(args: &SlurmArgs, plan: Plan) -> Result<Self> {
        let folder = std::env::current_dir().at(".")?;
        let own = std::env::current_exe().at("terrabench")?;
        let workers = args.workers.unwrap_or(plan.workers);
        if workers == 0 {
            return Err(Error::request("--workers: expected at least 1, found 0"));
        }
        let options = [&plan.slurm.name, &plan.slurm.partition, &plan.slurm.memory, &plan.slurm.time];
        let lines = options.into_iter().chain(&plan.slurm.options).chain([&plan.slurm.container]);
        if let Some(line) = lines.into_iter().find(|line| line.contains('\n')) {
            return Err(Error::damaged(&args.plan, format!("[slurm]: `{line}` has more than one line")));
        }
        Ok(Job {
            program: plan.slurm.program.clone().unwrap_or(own),
            file: std::path::absolute(&args.plan).at(&args.plan)?,
            folder,
            workers,
            plan,
        })
    }

    /// The program with its container and arguments, as a shell reads it.
    fn command(&self, arguments: &[&str]) -> String {
        let program = self.program.display().to_string();
        let words = shell_words(std::iter::once(program.as_str()).chain(arguments.iter().copied()));
        match self.plan.slurm.container.trim() {
            "" => words,
            container => format!("{container} {words}"),
        }
    }

    /// One line per worker.
    fn commands(&self) -> String {
        let folder = shell_words([self.folder.display().to_string().as_str()]);
        let plan = self.file.display().to_string();
        let mut text = String::new();
        for index in 0..self.workers {
            let before: String = self.plan.slurm.lines.iter().map(|line| format!("{line} && ")).collect();
            let command = self.command(&["worker", &plan, "--index", &index.to_string()]);
            text.push_str(&format!("cd {folder} && {before}{command}\n"));
        }
        text
    }

    /// Lines that every job begins with.
    fn beginning(&self) -> String {
        let mut text =
            format!("cd {} || exit 1\n", shell_words([self.folder.display().to_string().as_str()]));
        for line in &self.plan.slurm.lines {
            text.push_str(line);
            text.push_str(" || exit 1\n");
        }
        text
    }

    fn results(&self) -> PathBuf {
        self.folder.join(&self.plan.results)
    }

    /// Writes the scripts and creates the folder of logs.
    fn write(&self) -> Result<Scripts> {
        let folder = self.results().join("slurm");
        let logs = folder.join("logs");
        std::fs::create_dir_all(&logs).at(&logs)?;
        let scripts = Scripts { workers: folder.join("workers.sh"), report: folder.join("report.sh") };
        write_atomically(&scripts.workers, self.workers_script(&logs).as_bytes())?;
        write_atomically(&scripts.report, self.report_script(&logs).as_bytes())?;
        Ok(scripts)
    }

    fn workers_script(&self, logs: &Path) -> String {
        let SlurmJob { name, partition, gpus, cpus, memory, time, grace, requeues, options, .. } =
            &self.plan.slurm;
        let mut text = "#!/bin/bash\n".to_owned();
        let mut option = |line: String| text.push_str(&format!("#SBATCH {line}\n"));
        option(format!("--job-name={name}"));
        option(format!("--array=0-{}", self.workers - 1));
        if !partition.is_empty() {
            option(format!("--partition={partition}"));
        }
        if *gpus > 0 {
            option(format!("--gres=gpu:{gpus}"));
        }
        if *cpus > 0 {
            option(format!("--cpus-per-task={cpus}"));
        }
        if !memory.is_empty() {
            option(format!("--mem={memory}"));
        }
        if !time.is_empty() {
            option(format!("--time={time}"));
        }
        option("--requeue".to_owned());
        option(format!("--signal=B:TERM@{grace}"));
        option("--open-mode=append".to_owned());
        option(format!("--output={}", quoted_path(&logs.join("worker-%A-%a.log"))));
        options.iter().for_each(|line| option(line.clone()));
        let command = self.command(&["worker", &self.file.display().to_string(), "--index"]);
        text.push_str(&self.beginning());
        text.push_str(&format!(
            r#"
task="${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
state() {{ squeue -h -j "$task" -o %T 2>/dev/null; }}

# Before the time limit SLURM signals this shell alone, which hears of it only while it waits. When a job is cancelled or requeued,
# it signals the program too, for which a second signal means: at once.
stopped=
stop() {{
    stopped=1
    case "$(state)" in
        '' | RUNNING) kill -TERM "$worker" 2>/dev/null ;;
    esac
}}
trap stop TERM
{command} "$SLURM_ARRAY_TASK_ID" &
worker=$!
wait "$worker"
code=$?
while kill -0 "$worker" 2>/dev/null; do
    wait "$worker"
    code=$?
done

# 75: the program asks to be started again. 143: it ended because of the signal.
if [ "$code" -ne 0 ] && {{ [ -n "$stopped" ] || [ "$code" -eq 75 ] || [ "$code" -eq 143 ]; }}; then
    # Jobs that are being cancelled, or that SLURM requeues by itself, no longer run.
    if [ "$(state)" = RUNNING ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {requeues} ]; then
        echo "stopped; going on in the next job: $task"
        trap '' TERM
        scontrol requeue "$task" && exit 143
        # Sites may requeue this code by themselves (RequeueExit).
        exit 75
    fi
    exit 143
fi
exit "$code"
"#
        ));
        text
    }

    fn report_script(&self, logs: &Path) -> String {
        let SlurmJob { name, partition, options, .. } = &self.plan.slurm;
        let mut text = format!("#!/bin/bash\n#SBATCH --job-name={name}-report\n");
        if !partition.is_empty() {
            text.push_str(&format!("#SBATCH --partition={partition}\n"));
        }
        text.push_str(&format!("#SBATCH --output={}\n", quoted_path(&logs.join("report-%j.log"))));
        options.iter().for_each(|line| text.push_str(&format!("#SBATCH {line}\n")));
        text.push_str(&self.beginning());
        let results = self.plan.results.display().to_string();
        text.push_str(&format!("{}\n", self.command(&["status", "--results", &results])));
        text.push_str(&format!("{}\n", self.command(&["report", "--results", &results])));
        text
    }

    /// Runs the check of a worker, with the lines and the container of the jobs.
    fn check(&self) -> anyhow::Result<()> {
        let command = self.command(&["worker", &self.file.display().to_string(), "--check"]);
        let script = format!("{}{command}\n", self.beginning());
        let status = Command::new("bash")
            .args(["-c", &script])
            .stdin(Stdio::null())
            .status()
            .context("cannot start bash, which runs the jobs' scripts")?;
        if !status.success() {
            bail!(
                "the check failed: every worker would fail in the same way\n  help: the lines above say what is missing; the \
                 check ran\n{}",
                indented(&script)
            );
        }
        Ok(())
    }

    /// Submits the array, then the job that waits for it.
    fn submit(&self, scripts: &Scripts) -> anyhow::Result<()> {
        let workers = sbatch(&["--parsable"], &scripts.workers)?;
        let after = format!("--dependency=afterany:{workers}");
        let report = sbatch(&["--parsable", &after], &scripts.report)?;
        let logs = self.results().join("slurm/logs");
        console::tell(format_args!(
            "submitted {} workers as job {workers}, the report as job {report}; logs in {}\n",
            self.workers,
            logs.display()
        ));
        Ok(())
    }
}

/// Submits a script and returns the job's id.
fn sbatch(options: &[&str], script: &Path) -> anyhow::Result<String> {
    let output = Command::new("sbatch").args(options).arg(script).output().map_err(|problem| {
        anyhow::anyhow!(
            "cannot start sbatch: {problem}\n  help: submit where SLURM is installed, or use --emit commands for another queue"
        )
    })?;
    if !output.status.success() {
        bail!(
            "sbatch refused {}: {}\n  help: correct [slurm] in the plan",
            script.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let text = String::from_utf8_lossy(&output.stdout);
    // With several clusters: `id;cluster`.
    let id = text.trim().split(';').next().unwrap_or_default();
    if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_digit()) {
        bail!("sbatch: expected the job's id, found `{}`", text.trim());
    }
    Ok(id.to_owned())
}

/// Joins words so that a shell reads them as such.
fn shell_words<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<&str> = words.into_iter().collect();
    // Only a NUL cannot be quoted, and no path holds one.
    shlex::try_join(words.iter().copied()).unwrap_or_else(|_| words.join(" "))
}

/// A path on a line of options, which sbatch splits at spaces.
fn quoted_path(path: &Path) -> String {
    let path = path.display().to_string();
    if path.contains(' ') { format!("\"{path}\"") } else { path }
}

fn indented(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let _ = writeln!(out, "    {line}");
    }
    out
}
