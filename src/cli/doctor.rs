//! `doctor`: prints the findings of a diagnosis, for people or as JSON.

use anyhow::bail;

use super::args::{DoctorArgs, MakeFilesArgs, MeasureDeviceArgs, WorkArg};
use crate::console;
use crate::demo;
use crate::doctor::rates::{self, Work};
use crate::doctor::{self, Area, Finding, Standing, self_test};
use crate::home::Home;
use crate::locations::Environment;
use crate::task::Suite;

/// Runs the command. Fails if something is broken.
pub fn run(home: &Home, args: &DoctorArgs) -> anyhow::Result<()> {
    let findings = doctor::examine(home, &Environment::here(), args.device.as_deref());
    console::print(if args.json {
        let lines: Result<Vec<String>, _> = findings.iter().map(serde_json::to_string).collect();
        lines?.iter().map(|line| format!("{line}\n")).collect::<String>()
    } else {
        describe(&findings)
    })?;
    let broken = findings.iter().filter(|finding| finding.standing == Standing::Broken).count();
    if broken > 0 {
        bail!("{broken} broken: see the list above, with a remedy for each");
    }
    Ok(())
}

/// Prints what one precision of a device gives, for the doctor that started this process.
pub fn measure(home: &Home, args: &MeasureDeviceArgs) -> anyhow::Result<()> {
    let work = match args.work {
        WorkArg::Encoder => {
            let measured = self_test::measure(home, &args.device, args.precision.into())?;
            console::print(format!("{}\n", serde_json::to_string(&measured)?))?;
            return Ok(());
        }
        WorkArg::Neighbours => Work::Neighbours(args.size),
        WorkArg::Upernet => Work::Upernet(args.size),
        WorkArg::Finetune => Work::Finetune(args.size),
    };
    let rate = rates::measure(home, &args.device, args.precision.into(), work)?;
    console::print(format!("{:.2} {:.1e}\n", rate.per_second, rate.apart))?;
    Ok(())
}

/// Writes generated files of official sizes.
pub fn make_files(home: &Home, args: &MakeFilesArgs) -> anyhow::Result<()> {
    let suite = Suite::load(home, &args.suite)?;
    for task in &suite.tasks {
        if args.tasks.is_empty() || args.tasks.contains(&task.name) {
            let written = demo::write_many(&suite, task, args.one_of, &args.to)?;
            console::tell(format_args!("{} {written}\n", task.name));
        }
    }
    Ok(())
}

/// Formats the findings by area, each followed by its remedy.
fn describe(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.subject.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    let mut area = None;
    for finding in findings {
        if area.replace(finding.area) != Some(finding.area) {
            text.push_str(&format!("{}\n", title(finding.area)));
        }
        let Finding { subject, found, .. } = finding;
        let standing = word(finding.standing);
        text.push_str(&format!("  {standing:<9} {subject:width$}  {found}\n"));
        if let Some(remedy) = &finding.remedy {
            text.push_str(&format!("  {:<9} {:width$}  -> {remedy}\n", "", ""));
        }
    }
    text
}

fn title(area: Area) -> &'static str {
    match area {
        Area::Devices => "Devices",
        Area::SelfTest => "Self-test",
        Area::Libtorch => "LibTorch",
        Area::Onnxruntime => "ONNX Runtime",
        Area::Data => "Data",
        Area::Weights => "Weights",
        Area::Caches => "Caches",
        Area::Disk => "Free disk",
    }
}

fn word(standing: Standing) -> &'static str {
    match standing {
        Standing::Good => "good",
        Standing::Absent => "absent",
        Standing::Doubtful => "doubtful",
        Standing::Broken => "BROKEN",
    }
}
