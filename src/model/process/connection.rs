//! The pipes to an encoder process. One thread writes and one reads, so that neither side waits for the other while both have
//! something to say; a third keeps the end of what the process writes to its standard error.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::command::Command;
use super::message::{self, Reply, Request};
use super::tensors::Frame;
use crate::stop::{self, AtExit};
use crate::{Error, Result};

/// Longest line that is read.
const MAX_LINE: u64 = 1 << 20;

/// Most bytes of tensors that are read for one batch.
const MAX_BYTES: u64 = 1 << 34;

/// How many of them are given room at once.
const PROMPT: u64 = 1 << 26;

/// Bytes that a pipe holds: the most that Linux allows by default.
#[cfg(target_os = "linux")]
const PIPE: usize = 1 << 20;

/// How much of the standard error is kept.
const KEPT: usize = 16 << 10;

/// How often a request to stop is looked for while the encoder computes.
const GLANCE: Duration = Duration::from_millis(100);

/// How long a process that has closed its pipes may take to end, before it is killed.
const TO_END: Duration = Duration::from_secs(5);

/// What came from the encoder.
pub(super) enum Incoming {
    /// A message, with the bytes that follow it.
    Message(Reply, Vec<u8>),
    /// Something else than a message: what was found, and the text that came.
    Garbage { found: String, text: String },
    /// The encoder closed its side.
    End,
    /// Its messages cannot be read.
    Unreadable(io::Error),
    /// Nothing more can be written to it.
    Unwritable(io::Error),
}

/// The end of a standard error, and the thread that keeps it.
struct StandardError {
    kept: Arc<Mutex<Vec<u8>>>,
    thread: JoinHandle<()>,
}

/// A running encoder process.
pub(super) struct Connection {
    child: Option<Arc<Mutex<Child>>>,
    /// Ends the process if this program ends at once.
    _at_exit: Option<AtExit>,
    outgoing: Option<Sender<(String, Option<Frame>)>>,
    incoming: Receiver<Incoming>,
    writer: JoinHandle<()>,
    errors: Option<StandardError>,
}

impl Connection {
    /// Starts the process, or opens the pipes to one that is there.
    ///
    /// # Errors
    /// If it cannot be started, or the pipes are not open.
    pub(super) fn open(command: &Command) -> Result<Self> {
        let (sender, incoming) = channel();
        let (child, errors, input, output): (_, _, Box<dyn Read + Send>, Box<dyn Write + Send>) =
            match command {
                Command::Words(words) => {
                    let mut child = start(words)?;
                    let pipes = (child.stdout.take(), child.stdin.take(), child.stderr.take());
                    let (Some(output), Some(input), Some(errors)) = pipes else {
                        return Err(Error::request(format!("`{command}`: the process has no pipes")));
                    };
                    enlarge(&input);
                    enlarge(&output);
                    let kept = Arc::new(Mutex::new(Vec::new()));
                    let shared = Arc::clone(&kept);
                    let thread = std::thread::spawn(move || keep_end(errors, &shared));
                    (
                        Some(Arc::new(Mutex::new(child))),
                        Some(StandardError { kept, thread }),
                        Box::new(output),
                        Box::new(input),
                    )
                }
                Command::Pipes { read, write } => {
                    let input = inherited(*read, File::options().read(true))?;
                    let output = inherited(*write, File::options().write(true))?;
                    enlarge(&input);
                    enlarge(&output);
                    (None, None, Box::new(input), Box::new(output))
                }
            };
        let at_exit = child.as_ref().map(|child| {
            let child = Arc::clone(child);
            stop::at_exit(move || drop(locked(&child).kill()))
        });
        let reader = sender.clone();
        std::thread::spawn(move || read(input, &reader));
        let (outgoing, queue) = channel();
        let writer = std::thread::spawn(move || write(output, &queue, &sender));
        Ok(Connection { child, _at_exit: at_exit, outgoing: Some(outgoing), incoming, writer, errors })
    }

    /// Queues a message.
    pub(super) fn send(&self, request: &Request, frame: Option<Frame>) -> Result<()> {
        let line = serde_json::to_string(request).map_err(Error::mismatch)?;
        if let Some(outgoing) = &self.outgoing {
            // Fails only if the writer met an error, which then waits among the incoming.
            outgoing.send((line, frame)).ok();
        }
        Ok(())
    }

    /// Waits for what comes next. None if nothing comes within `limit`.
    ///
    /// # Errors
    /// If somebody asks this program to stop.
    pub(super) fn receive(&self, limit: Duration) -> Result<Option<Incoming>> {
        let start = Instant::now();
        loop {
            let left = limit.saturating_sub(start.elapsed());
            match self.incoming.recv_timeout(left.min(GLANCE)) {
                Ok(incoming) => return Ok(Some(incoming)),
                Err(RecvTimeoutError::Timeout) if left <= GLANCE => return Ok(None),
                Err(RecvTimeoutError::Timeout) => stop::check()?,
                Err(RecvTimeoutError::Disconnected) => return Ok(Some(Incoming::End)),
            }
        }
    }

    /// Stops the process. Returns how it ended, if it did so by itself within `patience`, and the end of its standard error.
    pub(super) fn stop(mut self, patience: Duration) -> (Option<ExitStatus>, String) {
        self.outgoing = None;
        let status = self.child.as_ref().and_then(|child| ended(child, patience));
        if let (Some(child), None) = (&self.child, status) {
            let mut child = locked(child);
            child.kill().ok();
            child.wait().ok();
        }
        let text = self.errors.take().map_or(String::new(), |StandardError { kept, thread }| {
            // Its own children may keep the pipe open.
            wait_for(Duration::from_millis(500), || thread.is_finished());
            let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            String::from_utf8_lossy(&kept).trim_end().to_owned()
        });
        (status, text)
    }

    /// Says that nothing more comes, and waits until the process has ended.
    pub(super) fn end(mut self) -> (Option<ExitStatus>, String) {
        self.send(&Request::End, None).ok();
        self.outgoing = None;
        wait_for(TO_END, || self.writer.is_finished());
        self.stop(TO_END)
    }
}

fn start(words: &[String]) -> Result<Child> {
    let (program, arguments) = words.split_first().ok_or_else(|| Error::request("no program to start"))?;
    let mut command = std::process::Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A terminal sends Ctrl-C and its own end to the whole group; this program decides when the encoder ends.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.spawn().map_err(|problem| {
        let error = Error::request(format!("cannot start the encoder `{program}`: {problem}"));
        let help = match problem.kind() {
            io::ErrorKind::NotFound => {
                "check its spelling and that it is in PATH; the working directory of the encoder is that of this program"
            }
            io::ErrorKind::PermissionDenied => "make the file executable, or start it with its interpreter: python encode.py",
            _ => "try the command in a terminal",
        };
        error.help(help).caused_by(problem)
    })
}

/// Opens a pipe that this process inherited.
fn inherited(descriptor: u32, options: &std::fs::OpenOptions) -> Result<File> {
    let path = format!("/dev/fd/{descriptor}");
    options.open(&path).map_err(|problem| {
        Error::request(format!("fd: the inherited descriptor {descriptor} cannot be opened: {problem}"))
            .help("start this program from the encoder's process, with both ends of two pipes passed on (pass_fds in Python)")
            .caused_by(problem)
    })
}

/// Lets a pipe hold more, so that both sides wait for each other less often. Nothing depends on it: a system may refuse, and
/// only Linux offers it.
#[cfg(target_os = "linux")]
fn enlarge(pipe: &impl std::os::fd::AsFd) {
    rustix::pipe::fcntl_setpipe_size(pipe, PIPE).ok();
}

#[cfg(not(target_os = "linux"))]
fn enlarge<P>(_: &P) {}

/// Waits until `done` is true, or `limit` is over. Returns the last answer.
fn wait_for(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if done() {
            return true;
        }
        if start.elapsed() >= limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn locked(child: &Mutex<Child>) -> MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ended(child: &Mutex<Child>, patience: Duration) -> Option<ExitStatus> {
    let mut status = None;
    wait_for(patience, || {
        status = locked(child).try_wait().ok().flatten();
        status.is_some()
    });
    status
}

/// Writes all messages of the queue until it is closed.
fn write(
    output: Box<dyn Write + Send>,
    queue: &Receiver<(String, Option<Frame>)>,
    sender: &Sender<Incoming>,
) {
    // Larger than a line; tensors are written past the buffer.
    let mut output = BufWriter::with_capacity(64 << 10, output);
    for (line, frame) in queue {
        let written = (|| {
            output.write_all(line.as_bytes())?;
            output.write_all(b"\n")?;
            frame.iter().try_for_each(|frame| frame.write(&mut output))?;
            output.flush()
        })();
        if let Err(problem) = written {
            sender.send(Incoming::Unwritable(problem)).ok();
            return;
        }
    }
}

/// Reads messages until the end, or until something is no message.
fn read(input: Box<dyn Read + Send>, sender: &Sender<Incoming>) {
    let mut input = BufReader::with_capacity(64 << 10, input);
    loop {
        let incoming = next(&mut input).unwrap_or_else(Incoming::Unreadable);
        let ends = !matches!(incoming, Incoming::Message(..));
        if sender.send(incoming).is_err() || ends {
            return;
        }
    }
}

fn next(input: &mut impl BufRead) -> io::Result<Incoming> {
    let mut line = Vec::new();
    input.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(Incoming::End);
    }
    let text = String::from_utf8_lossy(&line);
    let reply = match message::parse(&text) {
        Ok(reply) => reply,
        Err(found) => return Ok(Incoming::Garbage { found, text: text.trim_end().to_owned() }),
    };
    let Reply::Features(header) = &reply else { return Ok(Incoming::Message(reply, Vec::new())) };
    if header.bytes > MAX_BYTES {
        let found = format!("features of {} bytes (limit {MAX_BYTES})", header.bytes);
        return Ok(Incoming::Garbage { found, text: text.trim_end().to_owned() });
    }
    // Memory grows with what arrives, not with what was announced.
    let mut bytes = Vec::with_capacity(usize::try_from(header.bytes.min(PROMPT)).unwrap_or(0));
    input.by_ref().take(header.bytes).read_to_end(&mut bytes)?;
    if (bytes.len() as u64) < header.bytes {
        return Ok(Incoming::End);
    }
    Ok(Incoming::Message(reply, bytes))
}

/// Keeps the last bytes of a stream.
fn keep_end(mut errors: impl Read, kept: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = errors.read(&mut buffer) {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(&buffer[..count]);
        let surplus = kept.len().saturating_sub(KEPT);
        kept.drain(..surplus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(bytes: &[u8]) -> Incoming {
        next(&mut io::Cursor::new(bytes)).unwrap()
    }

    #[test]
    fn messages_and_their_bytes_are_read() {
        let text = b"{\"message\":\"features\",\"id\":3,\"bytes\":4,\"new key\":1}\nabcdrest";
        let Incoming::Message(Reply::Features(header), bytes) = first(text) else { panic!("no features") };
        assert_eq!((header.id, &bytes[..]), (3, &b"abcd"[..]));
    }

    #[test]
    fn anything_else_is_told_apart_from_the_end() {
        for (text, problem) in [
            (&b"Loading weights ...\n"[..], "a line that is not JSON"),
            (b"{\"loss\": 3}\n", "without the key `message`"),
            (b"3\n", "without the key `message`"),
            (b"{\"message\":\"hello\"}\n", "the unknown message `hello`"),
            (b"{\"message\":\"features\",\"id\":3}\n", "missing field `bytes`"),
            (b"{\"message\":\"features\",\"id\":3,\"bytes\":99999999999999}\n", "limit"),
            (b"\xff\xfe\n", "not JSON"),
        ] {
            let Incoming::Garbage { found, .. } = first(text) else { panic!("{problem}") };
            assert!(found.contains(problem), "{found}");
        }
        assert!(matches!(first(b""), Incoming::End));
        let short = b"{\"message\":\"features\",\"id\":3,\"bytes\":4}\nab";
        assert!(matches!(first(short), Incoming::End));
    }
}
