//! The conversation with an encoder process: what was told, what was asked, what must be answered next.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use burn::tensor::Device;

use super::command::Command;
use super::connection::{Connection, Incoming};
use super::message::{Header, Ready, Reply, Request};
use super::shared::Slots;
use super::tensors::{self, Frame, Outgoing, PixelType};
use crate::model::encoder::{Batch, Context, Encoded, Input, Want};
use crate::model::remote::{Agreement, Announcement, Unstacked};
use crate::nn::heads::upernet::MapLevel;
use crate::task::Sensors;
use crate::{Error, Result, device, stop};

/// Batches in flight where the encoder did not say.
const IN_FLIGHT: usize = 2;

/// The most batches in flight.
const MAX_IN_FLIGHT: usize = 64;

/// How often in a row the process may fail before it is not started again.
const MAX_FAILURES: usize = 2;

/// How long to wait for the end of a process that closed its pipes or reported an error.
const TO_END: Duration = Duration::from_secs(5);

/// Lines of the standard error that are shown.
const SHOWN_LINES: usize = 30;

/// Characters shown of a text that is no message.
const SHOWN: usize = 200;

/// A batch that was sent.
pub(super) struct Sent {
    id: u64,
    /// Which connection it was sent on.
    connection: u64,
    /// Number of images.
    n: usize,
    want: Want,
    /// Where its features are wanted.
    device: Device,
}

/// The state of a conversation.
pub(super) struct Dialogue {
    command: Command,
    /// The command with the paths of files beside a TOML.
    resolved: Command,
    sensors: Option<Sensors>,
    limit: Duration,
    connection: Option<Connection>,
    /// Counts connections.
    connections: u64,
    /// Of the command, when it was first started.
    pub(super) hash: Option<blake3::Hash>,
    /// What the first answer said.
    pub(super) identity: Option<String>,
    failure: Option<Error>,
    /// Failures since features last came.
    failures: usize,
    announcement: Option<Announcement>,
    /// What this connection was told to be wanted, of this announcement.
    told: Option<Want>,
    pub(super) ready: Option<Ready>,
    /// What was agreed on for this announcement.
    pub(super) agreement: Option<Agreement>,
    /// By number of bands.
    pub(super) widths: BTreeMap<usize, usize>,
    pub(super) levels: Vec<MapLevel>,
    narrowest: PixelType,
    /// Memory for batches on their way.
    slots: Slots,
    /// Of the next batch that is sent.
    next_id: u64,
    /// Of the next batch whose features come.
    expected_id: u64,
    arrived: HashMap<u64, (Header, Vec<u8>)>,
}

impl Dialogue {
    pub(super) fn new(
        command: Command,
        resolved: Command,
        sensors: Option<Sensors>,
        limit: Duration,
    ) -> Self {
        Dialogue {
            command,
            resolved,
            sensors,
            limit,
            connection: None,
            connections: 0,
            hash: None,
            identity: None,
            failure: None,
            failures: 0,
            announcement: None,
            told: None,
            ready: None,
            agreement: None,
            widths: BTreeMap::new(),
            levels: Vec::new(),
            narrowest: PixelType::default(),
            slots: Slots::default(),
            next_id: 0,
            expected_id: 0,
            arrived: HashMap::new(),
        }
    }

    pub(super) fn width(&self, bands: usize) -> usize {
        self.widths.get(&bands).copied().unwrap_or(0)
    }

    pub(super) fn in_flight(&self) -> usize {
        let asked = self.ready.as_ref().and_then(|ready| ready.in_flight);
        asked.unwrap_or(IN_FLIGHT).clamp(1, MAX_IN_FLIGHT)
    }

    pub(super) fn map_levels(&self) -> Result<Vec<MapLevel>> {
        if self.levels.is_empty() {
            return Err(Error::mismatch(format!("{self}: no maps were announced")));
        }
        Ok(self.levels.clone())
    }

    pub(super) fn announce(&mut self, announcement: &Announcement) -> Result<Agreement> {
        let want = announcement.want;
        let same = |before: &Announcement| Announcement { want, ..before.clone() } == *announcement;
        if self.announcement.as_ref().is_some_and(same) && self.agreement.is_some() {
            self.tell(want)?;
            return self
                .agreement
                .clone()
                .ok_or_else(|| Error::mismatch(format!("{self}: nothing was agreed on")));
        }
        self.announcement = Some(announcement.clone());
        (self.told, self.agreement, self.narrowest) = (None, None, PixelType::default());
        self.widths.clear();
        self.levels.clear();
        self.tell(announcement.want)?;
        self.agreement.clone().ok_or_else(|| Error::mismatch(format!("{self}: nothing was agreed on")))
    }

    /// Sends a batch of announced samples.
    pub(super) fn send(&mut self, batch: Batch, want: Want, image: usize) -> Result<Sent> {
        self.tell(want)?;
        self.send_batch(batch, want, image)
    }

    /// Waits for the features of a batch.
    pub(super) fn features(&mut self, sent: Sent) -> Result<Encoded> {
        let encoded = self.encoded(sent)?;
        self.failures = 0;
        Ok(encoded)
    }

    /// Like [`Dialogue::features`], but does not count as a success.
    pub(super) fn encoded(&mut self, Sent { id, connection, n, want, device }: Sent) -> Result<Encoded> {
        let (header, bytes) = loop {
            if connection != self.connections || self.connection.is_none() {
                let lost = || Error::mismatch(format!("{self}: batch {id} was lost when the process failed"));
                return Err(self.failure.clone().unwrap_or_else(lost));
            }
            if let Some(arrived) = self.arrived.remove(&id) {
                break arrived;
            }
            match self.receive(&format!("the features of batch {id}"))? {
                Reply::Ready(_) => {
                    let problem = format!("expected the features of batch {id}, found a message `ready`");
                    return Err(self.fail(
                        problem,
                        "send `ready` once after each `task`, and nowhere else",
                        Duration::ZERO,
                    ));
                }
                // `receive` keeps features and reports errors.
                Reply::Features(_) | Reply::Error { .. } => {}
            }
        };
        tensors::features(&header, &bytes, n, want, &device).map_err(|problem| {
            Error::mismatch(format!("{self}, batch {id}: {problem}"))
                .help("docs/wire-protocol.md lists names, shapes and types of features")
        })
    }

    /// Makes sure that the process runs and knows what comes and what is wanted.
    fn tell(&mut self, want: Want) -> Result<()> {
        if self.connection.is_some() && self.told == Some(want) {
            return Ok(());
        }
        let Some(about) = self.announcement.clone() else {
            return Err(Error::mismatch(format!("{self}: no task was announced")));
        };
        self.start()?;
        self.told = None;
        self.arrived.clear();
        if let Some(connection) = &self.connection {
            let shared = self.slots.example();
            connection.send(&Request::task(&about, want, self.sensors.as_ref(), shared.as_deref()), None)?;
        }
        let ready = loop {
            match self.receive("its answer `ready`")? {
                Reply::Ready(ready) => break ready,
                Reply::Features(_) => self.arrived.clear(),
                Reply::Error { text, traceback } => {
                    let error = Error::mismatch(format!(
                        "{self} refuses {}: {text}{}",
                        about.task,
                        indented(&traceback)
                    ));
                    return Err(error.help(
                        "this comes from the encoder; leave the task or the protocol out if it cannot do it",
                    ));
                }
            }
        };
        self.agree(&ready, want)?;
        self.ready = Some(ready);
        self.told = Some(want);
        self.learn_sizes(&about, want)
    }

    /// Starts the process unless it runs.
    fn start(&mut self) -> Result<()> {
        if self.connection.is_some() {
            return Ok(());
        }
        if let Some(failure) = &self.failure
            && (matches!(self.command, Command::Pipes { .. }) || self.failures >= MAX_FAILURES)
        {
            return Err(failure.clone());
        }
        let hash = self.command.hash(&self.resolved)?;
        if *self.hash.get_or_insert(hash) != hash {
            return Err(Error::mismatch(format!(
                "{self}: a file named in its command changed during the run"
            ))
            .help("start the run again; a file that the encoder writes must not be named in its command"));
        }
        let connection = Connection::open(&self.resolved).inspect_err(|error| {
            self.failures += 1;
            self.failure = Some(error.clone());
        })?;
        self.connection = Some(connection);
        self.connections += 1;
        (self.next_id, self.expected_id) = (0, 0);
        self.slots.free_all();
        Ok(())
    }

    /// Sends a batch to a process that knows what is wanted.
    pub(super) fn send_batch(&mut self, batch: Batch, want: Want, image: usize) -> Result<Sent> {
        let device = batch.inputs.first().map_or_else(device::host, |input| input.pixels.device());
        let n = batch.len();
        let outgoing = |(place, Input { pixels, context, .. }): (usize, Input)| {
            Ok((Outgoing::pixels(format!("image{place}"), pixels)?, context))
        };
        let images = batch.inputs.into_iter().enumerate().map(outgoing).collect::<Result<_>>()?;
        self.send_images(images, n, want, image, device)
    }

    /// Like [`Dialogue::send`] with images that were not joined to tensors.
    pub(super) fn send_unstacked(
        &mut self,
        inputs: Vec<Unstacked>,
        want: Want,
        image: usize,
    ) -> Result<Sent> {
        self.tell(want)?;
        let n = inputs.first().map_or(0, |input| input.pixels.len());
        let outgoing = |(place, Unstacked { pixels, context }): (usize, Unstacked)| {
            (Outgoing::images(format!("image{place}"), pixels), context)
        };
        let images = inputs.into_iter().enumerate().map(outgoing).collect();
        self.send_images(images, n, want, image, device::host())
    }

    /// Sends the images of `n` samples, with when and where they were taken. Features come back to `device`.
    fn send_images(
        &mut self,
        images: Vec<(Outgoing, Context)>,
        n: usize,
        want: Want,
        image: usize,
        device: Device,
    ) -> Result<Sent> {
        let stored = self.agreement.as_ref().is_some_and(|agreement| agreement.takes_stored);
        let mut outgoing = Vec::new();
        let named =
            |what: &str, place: usize| if place == 0 { what.to_owned() } else { format!("{what}{place}") };
        for (place, (pixels, context)) in images.into_iter().enumerate() {
            outgoing.push(if stored { pixels.narrowed(&mut self.narrowest) } else { pixels });
            if context.days.len() == n {
                outgoing.push(Outgoing::days(named("days", place), &context.days));
            }
            if context.places.len() == n {
                outgoing.push(Outgoing::places(named("places", place), &context.places));
            }
        }
        let frame = Frame::new(outgoing);
        let id = self.next_id;
        self.next_id += 1;
        if let Some(connection) = &self.connection {
            let bytes = frame.len();
            let message = |shared| Request::Batch { id, images: n, image, bytes, shared };
            let shares = self.ready.as_ref().is_some_and(|ready| ready.shared);
            match if shares { self.slots.take(id) } else { None } {
                Some(target) => connection.share(message, frame, target)?,
                None => connection.send(&message(None), Some(frame))?,
            }
        }
        Ok(Sent { id, connection: self.connections, n, want, device })
    }

    /// Waits for the next message. Features are kept for whoever waits for them. An error that answers a task is returned; any
    /// other error, and everything that is no message, ends the process.
    fn receive(&mut self, expected: &str) -> Result<Reply> {
        let mut unwritable = None;
        loop {
            // After a failed write the reason is about to come.
            let limit = if unwritable.is_some() { TO_END } else { self.limit };
            let Some(connection) = &self.connection else {
                return Err(self
                    .failure
                    .clone()
                    .unwrap_or_else(|| Error::mismatch(format!("{self}: it does not run"))));
            };
            let problem = match connection.receive(limit)? {
                Some(Incoming::Message(Reply::Features(header), bytes)) => {
                    if header.id != self.expected_id || header.id >= self.next_id {
                        let problem = format!("expected {expected}, found those of batch {}", header.id);
                        return Err(self.fail(
                            problem,
                            "answer every batch once, in their order",
                            Duration::ZERO,
                        ));
                    }
                    self.expected_id += 1;
                    self.slots.free(header.id);
                    self.arrived.insert(header.id, (header.clone(), bytes));
                    return Ok(Reply::Features(header));
                }
                Some(Incoming::Message(Reply::Error { text, traceback }, _)) => {
                    // Nothing is under way: the encoder waits for another task.
                    if self.expected_id == self.next_id {
                        return Ok(Reply::Error { text, traceback });
                    }
                    let problem = format!("it reports an error: {text}{}", indented(&traceback));
                    return Err(self.fail(problem, "this comes from the encoder; finished cells are kept, so start the run again once it is repaired", Duration::from_secs(1)));
                }
                Some(Incoming::Message(reply, _)) => return Ok(reply),
                Some(Incoming::Garbage { found, text }) => {
                    let shown: String = text.chars().take(SHOWN).collect();
                    let problem =
                        format!("expected {expected}, found {found} on its standard output: `{shown}`");
                    return Err(self.fail(problem, PRINTS, Duration::from_millis(200)));
                }
                Some(Incoming::Unwritable(problem)) => {
                    unwritable = Some(problem);
                    continue;
                }
                Some(Incoming::End) => format!("expected {expected}, but it closed its standard output"),
                Some(Incoming::Unreadable(problem)) => {
                    format!("expected {expected}, but its output cannot be read: {problem}")
                }
                None => match unwritable {
                    Some(problem) => {
                        format!("expected {expected}, but it no longer reads its input: {problem}")
                    }
                    None => {
                        let problem =
                            format!("expected {expected}, but nothing came for {} seconds", limit.as_secs());
                        return Err(self.fail(problem, HANGS, Duration::ZERO));
                    }
                },
            };
            return Err(self.fail(problem, ENDED, TO_END));
        }
    }

    /// Stops the process and describes why.
    pub(super) fn fail(&mut self, problem: String, help: &str, patience: Duration) -> Error {
        let (status, errors) = match self.connection.take() {
            Some(connection) => connection.stop(patience),
            None => (None, String::new()),
        };
        self.told = None;
        self.arrived.clear();
        self.failures += 1;
        let mut text = format!("{self}: {problem}");
        if let Some(status) = status {
            text += &format!(" ({status})");
        }
        if !errors.is_empty() {
            let lines: Vec<&str> = errors.lines().collect();
            let last = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
            text += &format!("\n  its standard error ends with:{}", indented(&Some(last)));
        }
        let error = Error::mismatch(text).help(help);
        self.failure = Some(error.clone());
        error
    }
}

const PRINTS: &str = "compare with docs/wire-protocol.md. Only messages may go to standard output, so the encoder must not print there: in Python, \
    print(..., file=sys.stderr), or at the start `out = os.fdopen(os.dup(1), \"wb\"); os.dup2(2, 1)`, which sends all prints to \
    standard error";

const HANGS: &str = "if it needs longer, raise --encoder-timeout (`time-limit` in the model's TOML); otherwise check that it \
    flushes its output after every message";

const ENDED: &str =
    "read the last lines of its standard error, or start its command in a terminal; finished cells are kept";

/// Puts every line of a text on a line of its own.
fn indented(text: &Option<String>) -> String {
    let lines = text.iter().flat_map(|text| text.lines());
    lines.map(|line| format!("\n    {line}")).collect()
}

impl std::fmt::Display for Dialogue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.command {
            Command::Pipes { .. } => f.write_str("the encoder that started this program"),
            command => write!(f, "encoder `{command}`"),
        }
    }
}

impl Drop for Dialogue {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        // Somebody who wants to stop does not wait for an encoder in the middle of a batch.
        let (status, errors) = match stop::asked() {
            Some(_) => connection.stop(Duration::ZERO),
            None => connection.end(),
        };
        if let Some(status) = status.filter(|status| !status.success()) {
            tracing::warn!("{self}: ended with {status} after the last batch{}", indented(&Some(errors)));
        }
    }
}
