//! Runs cells: from opened data to a stored record.

mod beside;
pub mod command;
mod findings;
mod graphics;
mod memory;
pub mod plan;
pub mod sharing;
pub mod sheet;
pub mod spread;
pub mod status;
pub mod vectors;

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use burn::tensor::Device;

use self::beside::Other;
use self::command::CommandLine;
use self::findings::{Audited, Earlier, FeatureLog, LoggedSource};
use self::sharing::{Elsewhere, Sharing, WantedCell};
use self::sheet::{Example, Heading};
use crate::claims::{Claim, Claims};
use crate::data::decoding::Decoding;
use crate::data::{self, Split, Target};
use crate::device::Precision;
use crate::features::batch_size::BatchSizes;
use crate::features::cache::Cache;
use crate::features::source::{EncoderSource, FeatureSource, KnownFeatures};
use crate::features::vectors::{UNKNOWN, VectorFolder, VectorSource, VectorTask};
use crate::features::{
    Agreed, BatchSize, Extractor, FEATURES_VERSION, FeatureBank, Identity, Input, InputOptions, Replica,
    Waiting,
};
use crate::model::config::{Inputs, ModelConfig};
use crate::model::remote::RemoteEncoder;
use crate::model::weights::Weights;
use crate::model::{self, Architecture, Coverage, LoadedModel, Pooling};
use crate::nn::heads::upernet::MapLevel;
use crate::program::Program;
use crate::progress::Progress;
use crate::protocol::{Accelerator, Needs, ProtocolConfig, Session, TrainingSetup};
use crate::record::predictions::Named;
use crate::record::{
    Cell, Deciding, Note, PROTOCOL_VERSION, Provenance, Record, RecordedImage, SCHEMA, Speed, Store,
    fingerprint, protocol_settings,
};
use crate::run::plan::{PlannedCell, TaskPlan};
use crate::score::Shown;
use crate::score::subset::subset;
use crate::task::bands::Band;
use crate::task::{Metadata, Sensor, Suite, Task, TaskImage};
use crate::train::snapshot::remove_all;
use crate::transform::augment::Dihedral;
use crate::transform::on_device::DevicePreprocess;
use crate::transform::resize::{self, Nearest};
use crate::{Error, ErrorKind, Result, stop};

/// The settings shared by all cells of a run.
pub struct Setting<'a> {
    /// The suite whose tasks run.
    pub suite: &'a Suite,
    /// The model to measure.
    pub model: &'a ModelConfig,
    /// The weights, or why there are none; recorded cells are listed anyway.
    pub weights: Result<Weights>,
    /// The folder with the features, if another program computed them; `weights` are then none.
    pub vectors: Option<VectorFolder>,
    /// Whether weights may cover only part of the model.
    pub allow_partial: bool,
    /// The suite's data folder, or why there is none.
    pub data: Result<PathBuf>,
    /// Whether the data are generated.
    pub demo: bool,
    /// How pixels are selected and normalised.
    pub input: InputOptions,
    /// Which bands the model receives, for the records; `model` is configured accordingly.
    pub inputs: Inputs,
    /// The device to compute on, without autodiff.
    pub device: Device,
    /// Further devices of the same kind, which share the extraction of features.
    pub further_devices: Vec<Device>,
    /// The devices as on the command line.
    pub device_name: String,
    /// The number format of the frozen model.
    pub precision: Precision,
    /// Images per batch of extraction.
    pub batch_sizes: BatchSizes,
    /// Bytes of memory for the feature maps of a frozen encoder; the rest spills to disk.
    pub cache_limit: u64,
    /// Number of threads that read and preprocess.
    pub threads: usize,
    /// Whether to compute finished cells again.
    pub fresh: bool,
    /// The feature cache, if enabled.
    pub cache: Option<Cache>,
    /// Version and revision of this program, for the records.
    pub program: Program,
    /// The command line, for the records.
    pub command: CommandLine,
    /// blake3 of the config files, by `suite`, `model` and `normalization`.
    pub configs: BTreeMap<String, String>,
    /// blake3 of each protocol's file, by the protocol's name.
    pub protocol_configs: BTreeMap<String, String>,
    /// A second model, whose features stand beside each of this one's.
    pub beside: Option<&'a Setting<'a>>,
}

impl Setting<'_> {
    fn weights(&self) -> Result<&Weights> {
        self.weights.as_ref().map_err(Error::clone)
    }
}

/// A finished cell: its record and the record's path.
#[derive(Debug, Clone)]
pub struct Done {
    /// The cell's record.
    pub record: Record,
    /// Path of the record's file.
    pub path: PathBuf,
    /// Whether the record existed before this run.
    pub reused: bool,
    /// Whether the record could not be compared with the current data and weights because either is missing.
    pub unchecked: bool,
}

/// What became of a cell.
#[derive(Debug)]
pub enum Attempt {
    /// It is recorded, or failed.
    Finished(Result<Box<Done>>),
    /// Another process computes it, or features that it needs.
    Elsewhere(Elsewhere),
}

/// Runs the cells of a [`Setting`] and stores their records.
pub struct Runner<'a> {
    setting: &'a Setting<'a>,
    store: &'a Store,
    /// None if only the opened encoder knows it.
    weights_id: Result<Option<String>>,
    coverage: Coverage,
    model: LazyModel<'a>,
    earlier: Earlier,
    beside: Option<Box<Runner<'a>>>,
    /// Set if other processes may compute cells of the same results.
    sharing: Option<Sharing>,
    /// What the names of the records' files said when the first cell needed it.
    recorded_digits: OnceCell<HashSet<String>>,
}

/// Loads the model when the first cell needs it, so that a run whose cells are all recorded loads none.
struct LazyModel<'a> {
    setting: &'a Setting<'a>,
    loaded: OnceCell<LoadedModel>,
    /// The model on the further devices.
    replicas: OnceCell<Vec<Replica>>,
    /// The model for protocols that train it. Clones share its tensors until training changes them.
    trainable: OnceCell<Architecture>,
}

impl LazyModel<'_> {
    fn get(&self) -> Result<&LoadedModel> {
        let Setting { model, allow_partial, device, .. } = self.setting;
        match self.loaded.get() {
            Some(loaded) => Ok(loaded),
            None => {
                let loaded = model::load(model, self.setting.weights()?, *allow_partial, device)?;
                Ok(self.loaded.get_or_init(|| loaded))
            }
        }
    }

    fn replicas(&self) -> Result<&[Replica]> {
        if let Some(replicas) = self.replicas.get() {
            return Ok(replicas);
        }
        let Setting { model, allow_partial, further_devices, .. } = self.setting;
        let load = |device: &Device| {
            let encoder = model::load(model, self.setting.weights()?, *allow_partial, device)?.encoder;
            Ok(Replica { encoder, device: device.clone() })
        };
        let replicas = further_devices.iter().map(load).collect::<Result<_>>()?;
        Ok(self.replicas.get_or_init(|| replicas))
    }

    fn trainable(&self, device: &Device) -> Result<Architecture> {
        if let Some(network) = self.trainable.get() {
            return Ok(network.clone());
        }
        let Setting { model, allow_partial, .. } = self.setting;
        let network = model::trainable(model, self.setting.weights()?, *allow_partial, device)?;
        Ok(self.trainable.get_or_init(|| network).clone())
    }
}

/// Bands to read per image, and what the colours that they make are called.
type ShownBands = (Vec<Vec<String>>, &'static str);

impl<'a> Runner<'a> {
    /// Creates a runner. With `allow_partial` it loads the weights at once, because only loading shows whether parameters stay
    /// random. Missing weights are not an error here but in the cells that need them.
    ///
    /// # Errors
    /// If the weights' file exists and cannot be read.
    pub fn new(setting: &'a Setting<'a>, store: &'a Store) -> Result<Self> {
        let model = LazyModel {
            setting,
            loaded: OnceCell::new(),
            replicas: OnceCell::new(),
            trainable: OnceCell::new(),
        };
        let (weights_id, coverage) = match &setting.weights {
            Err(error) => (Err(error.clone()), Coverage::Whole),
            Ok(weights @ Weights::File(path)) if !path.exists() => (weights.id().map(Some), Coverage::Whole),
            Ok(weights) if setting.allow_partial => {
                let loaded = model.get()?;
                (Ok(Some(loaded.weights_id.clone())), Coverage::of(weights, &loaded.report))
            }
            Ok(weights @ Weights::Random(_)) => (Ok(Some(weights.id()?)), Coverage::Random),
            // Without `allow_partial`, loading fails unless the weights cover the whole model.
            Ok(weights @ (Weights::File(_) | Weights::None)) => {
                (Ok(model::identity(setting.model, weights)?), Coverage::Whole)
            }
        };
        let beside = setting.beside.map(|other| Runner::new(other, store).map(Box::new)).transpose()?;
        Ok(Runner {
            setting,
            store,
            weights_id,
            coverage,
            model,
            earlier: Earlier::default(),
            beside,
            sharing: None,
            recorded_digits: OnceCell::new(),
        })
    }

    /// Lets other processes compute cells of the same results.
    #[must_use]
    pub fn shared(mut self, sharing: Sharing) -> Self {
        self.sharing = Some(sharing);
        self
    }

    /// Returns what is shared with other processes, if anything is.
    pub fn sharing(&self) -> Option<&Sharing> {
        self.sharing.as_ref()
    }

    /// Lists the cells of plans for [`Sharing::announce`].
    ///
    /// # Errors
    /// If a cell's settings have no JSON form.
    pub fn wanted(&self, plans: &[TaskPlan]) -> Result<Vec<WantedCell>> {
        let cells = plans.iter().flat_map(|plan| plan.cells.iter().map(move |planned| (&plan.task, planned)));
        cells
            .map(|(task, planned)| {
                Ok(WantedCell { request: self.request(task, planned)?, cell: planned.cell.clone() })
            })
            .collect()
    }

    /// Returns the record of a cell that another process computed, if it is there by now, or why it failed there.
    ///
    /// # Errors
    /// If the record cannot be read, or the cell failed.
    pub fn from_elsewhere(
        &self,
        task: &Task,
        planned: &PlannedCell,
        elsewhere: &Elsewhere,
    ) -> Result<Option<Done>> {
        if !self.setting.fresh
            && let Some(record) = self.store.named(&elsewhere.fingerprint, &planned.cell)?
        {
            let path = self.store.path(&record);
            return Ok(Some(Done { path, record, reused: true, unchecked: false }));
        }
        let failure = self.failed_elsewhere(&self.request(task, planned)?);
        failure.map_or(Ok(None), Err)
    }

    fn failed_elsewhere(&self, request: &str) -> Option<Error> {
        self.sharing.as_ref()?.failed_elsewhere(request)
    }

    /// Checks, without computing anything, what the cells of a task need: files, weights, an encoder that starts.
    ///
    /// # Errors
    /// If something is missing or does not fit.
    pub fn check_task(&self, plan: &TaskPlan) -> Result<()> {
        let setting = self.setting;
        let files = self.vectors(&plan.task).transpose()?;
        let data = setting.data.clone()?;
        for cells in plan.cells.chunk_by(|a, b| a.cell.partition == b.cell.partition) {
            let partition = &cells[0].cell.partition;
            let input =
                Input::open(setting.suite, &plan.task, partition, &data, setting.model, &setting.input)?;
            for split in Split::ALL {
                if !input.dataset.samples(split).is_empty() && files.is_none() {
                    input.labelled(split, 0)?;
                }
            }
            if files.is_none() && self.weights_id.clone()?.is_none() {
                self.agree(input, cells)?;
            }
        }
        if files.is_none() {
            self.model.get()?;
        }
        self.store.check_writable()
    }

    /// Returns why data or weights are missing, if they are.
    pub fn missing(&self) -> Option<&Error> {
        let own = self.setting.data.as_ref().err().or(self.weights_id.as_ref().err());
        own.or_else(|| self.beside.as_ref()?.missing())
    }

    /// Returns the identity of the weights for records of `task`, unless an encoder alone knows it; features from files have one per task.
    fn weights_id(&self, files: Option<&Result<Arc<VectorTask>>>) -> Result<Option<String>> {
        match files {
            Some(files) => files.as_ref().map_err(Error::clone)?.id().map(Some),
            None => self.weights_id.clone(),
        }
    }

    /// Opens the task's features, if another program computed them.
    fn vectors(&self, task: &Task) -> Option<Result<Arc<VectorTask>>> {
        self.setting.vectors.as_ref().map(|folder| folder.task(&task.name))
    }

    /// Finds the record of a planned cell without data or weights: the one finished last, with the same weights if these are
    /// known.
    ///
    /// # Errors
    /// If records cannot be read.
    pub fn recorded(&self, task: &Task, planned: &PlannedCell) -> Result<Option<Done>> {
        if self.setting.fresh {
            return Ok(None);
        }
        let request = self.request(task, planned)?;
        let weights_id = self.weights_id(self.vectors(task).as_ref());
        let same_weights = |record: &Record| match &weights_id {
            Ok(Some(id)) => record.provenance.weights == *id,
            Ok(None) | Err(_) => true,
        };
        let record = self.store.of_request(&request)?.into_iter().find(same_weights);
        Ok(record.map(|record| Done {
            path: self.store.path(&record),
            record,
            reused: true,
            unchecked: true,
        }))
    }

    /// Returns [`Record::request`] of a planned cell.
    pub(crate) fn request(&self, task: &Task, planned: &PlannedCell) -> Result<String> {
        let decoding = Decoding::of(self.setting.suite.family, task).hash();
        let protocol = planned.protocol.deciding(&task.name);
        let impute = self.setting.input.impute(task);
        let beside = self.beside.as_ref().map(|other| other.request(task, planned)).transpose()?;
        let beside = beside.as_deref().unwrap_or_default();
        Deciding { beside, ..self.asked(task, &planned.cell, &protocol, &decoding) }.request(&impute)
    }

    /// Collects what affects the number of a cell, as far as it is known without data and weights.
    fn asked<'d>(
        &'d self,
        task: &'d Task,
        cell: &'d Cell,
        protocol: &'d ProtocolConfig,
        decoding: &'d str,
    ) -> Deciding<'d> {
        let setting = self.setting;
        let is_known = setting.vectors.is_none();
        let normalization = setting.input.normalization_of(setting.suite, task, setting.model);
        Deciding {
            protocol_version: PROTOCOL_VERSION,
            features_version: FEATURES_VERSION,
            demo: setting.demo,
            cell,
            task: task.deciding(),
            protocol,
            model: setting.model.deciding(),
            decoding,
            weights: "",
            data: "",
            sensor: told(setting.model, task),
            pooling: recorded_pooling(setting.model, protocol.needs()).filter(|_| is_known),
            channels: &setting.input.channels,
            bands: &[],
            band_names: if is_known { setting.input.band_names(task) } else { UNKNOWN },
            imputed: &[],
            normalization: if is_known { normalization } else { UNKNOWN },
            strategies: &[],
            image_size: if is_known { setting.model.side(task) } else { 0 },
            resize: setting.suite.resize,
            beside: "",
            precision: setting.precision,
            metadata: Metadata::of(task, setting.model.architecture.metadata()),
        }
    }

    /// Runs a task's cells. A cell that fails does not stop the others, unless somebody asked to stop or the program itself is
    /// at fault ([`crate::ErrorKind::ends_the_run`]): such an error is the last outcome.
    pub fn run_task(&self, plan: &TaskPlan, progress: &dyn Progress) -> Vec<(Cell, Result<Done>)> {
        let finished = |attempt| match attempt {
            Attempt::Finished(outcome) => outcome.map(|done| *done),
            Attempt::Elsewhere(_) => Err(Error::mismatch("another process computes this cell")),
        };
        let attempts = self.attempt_task(plan, progress).into_iter();
        attempts.map(|(planned, attempt)| (planned.cell.clone(), finished(attempt))).collect()
    }

    /// Like [`Runner::run_task`], and leaves cells that other processes compute to them.
    pub fn attempt_task<'p>(
        &self,
        plan: &'p TaskPlan,
        progress: &dyn Progress,
    ) -> Vec<(&'p PlannedCell, Attempt)> {
        let extractions = self
            .sharing
            .as_ref()
            .zip(self.setting.cache.as_ref())
            .map(|(sharing, cache)| Claims::new(cache.folder(), sharing.claims().stale_after()));
        let new_bank =
            || KnownFeatures::new(FeatureBank::new(self.setting.cache.clone()).sharing(extractions.clone()));
        let (mut known, mut known_beside) = (new_bank(), new_bank());
        let files = self.vectors(&plan.task);
        let weights_id = self.weights_id(files.as_ref());
        let files = files.and_then(Result::ok);
        let mut outcomes = Vec::new();
        for cells in plan.cells.chunk_by(|a, b| a.cell.partition == b.cell.partition) {
            let partition = &cells[0].cell.partition;
            let setting = self.setting;
            let input = setting.data.clone().and_then(|data| {
                Input::open(setting.suite, &plan.task, partition, &data, setting.model, &setting.input)
            });
            let here = setting
                .data
                .as_ref()
                .is_ok_and(|data| data::task_folder(setting.suite, &plan.task, data).is_some());
            // Whether a cell may be listed as recorded instead: what is missing was there once.
            let agreed = match (input, &weights_id) {
                (Ok(input), Ok(Some(id))) => Ok(Agreed { input, weights: id.clone(), announcement: None }),
                (Ok(input), Ok(None)) => self.agree(input, cells).map_err(|error| (error, false)),
                (Err(error), _) => Err((error, !here)),
                (Ok(_), Err(error)) => Err((error.clone(), true)),
            };
            let other = self.beside.as_ref().map(|runner| runner.opened(&plan.task, partition)).transpose();
            for planned in cells {
                let request = self.request(&plan.task, planned);
                if let Some(error) = request.as_ref().ok().and_then(|request| self.failed_elsewhere(request))
                {
                    outcomes.push((planned, Attempt::Finished(Err(error))));
                    continue;
                }
                let attempt = match (&agreed, &other) {
                    (Ok(agreed), Ok(other)) => {
                        let origin = Origin { weights_id: &agreed.weights, vectors: files.as_deref() };
                        let beside = self.beside.as_deref().zip(other.as_ref());
                        let beside =
                            beside.map(|(runner, agreed)| Other { runner, agreed, known: &mut known_beside });
                        self.run_cell(&plan.task, planned, agreed, origin, beside, &mut known, progress)
                    }
                    (Ok(_), Err(error)) => Err(error.clone()),
                    (Err((error, false)), _) => Err(error.clone()),
                    (Err((error, true)), _) => self
                        .recorded(&plan.task, planned)
                        .and_then(|done| done.ok_or_else(|| error.clone()))
                        .map(|done| Attempt::Finished(Ok(Box::new(done)))),
                };
                let attempt = attempt.unwrap_or_else(|error| {
                    // A scheduler ends the whole job: an encoder that is gone is then no failure of the cell.
                    Attempt::Finished(Err(stop::check().err().unwrap_or(error)))
                });
                let ends = matches!(&attempt, Attempt::Finished(Err(error)) if error.kind().ends_the_run());
                if let (Some(sharing), Ok(request), Attempt::Finished(outcome)) =
                    (&self.sharing, &request, &attempt)
                {
                    match outcome {
                        Ok(_) => sharing.forget_failure(request),
                        Err(error) if error.kind() == ErrorKind::Stopped => {}
                        Err(error) => sharing.note_failure(request, &planned.cell, error),
                    }
                }
                outcomes.push((planned, attempt));
                if ends {
                    return outcomes;
                }
            }
        }
        outcomes
    }

    /// Tells an encoder that knows its own identity which samples come. Cells may want different things of it, not all of which
    /// it need give: the first that it gives decides.
    fn agree(&self, mut input: Input, cells: &[PlannedCell]) -> Result<Agreed> {
        let (setting, encoder) = (self.setting, self.model.get()?.encoder.as_ref());
        let mut refusal = None;
        for planned in cells {
            let want = planned.protocol.needs().want(input.pooling);
            let asked = &setting.input.normalization;
            match Agreed::negotiate(
                encoder,
                setting.suite,
                input,
                want,
                setting.batch_sizes.given_or_small(),
                asked,
            ) {
                Ok(agreed) => return Ok(agreed),
                Err((error, rest)) => {
                    input = rest;
                    refusal = refusal.or(Some(error));
                }
            }
        }
        Err(refusal.unwrap_or_else(|| Error::mismatch("no cell wants anything of the encoder")))
    }

    #[expect(clippy::too_many_arguments, reason = "what is known of one cell")]
    fn run_cell(
        &self,
        task: &Task,
        planned: &PlannedCell,
        agreed: &Agreed,
        origin: Origin<'_>,
        mut beside: Option<Other<'_>>,
        known: &mut KnownFeatures,
        progress: &dyn Progress,
    ) -> Result<Attempt> {
        let input = &agreed.input;
        let start = Instant::now();
        let setting = self.setting;
        let cell = &planned.cell;
        let sweep = input.strategies.len() > 1;
        // A sweep chooses its strategy on the validation split.
        let splits = if sweep { &Split::ALL } else { planned.protocol.splits() };
        let decoding = input.dataset.decoding().hash();
        let protocol = planned.protocol.deciding(&task.name);
        let (data, bands, imputed) = (input.fingerprint(splits)?, input.channel_names(), input.imputed());
        let mut deciding = Deciding {
            weights: origin.weights_id,
            data: &data,
            normalization: if origin.vectors.is_none() { &input.normalization } else { UNKNOWN },
            ..self.asked(task, cell, &protocol, &decoding)
        };
        // Of features from files it is unknown which pixels they were computed from.
        if origin.vectors.is_none() {
            deciding = Deciding {
                bands: &bands,
                imputed: &imputed,
                strategies: &input.strategies,
                image_size: input.image_size(),
                ..deciding
            };
        }
        let of_other = beside.as_ref().map(|other| other.fingerprint(task, planned)).transpose()?;
        deciding.beside = of_other.as_deref().unwrap_or_default();
        let fingerprint = deciding.fingerprint()?;
        let reused = |record: Record| {
            self.store.settle(&record)?;
            let record = match origin.vectors {
                Some(files) => self.relabelled(record, files, progress)?,
                None => record,
            };
            let path = self.store.path(&record);
            Ok(Attempt::Finished(Ok(Box::new(Done { path, record, reused: true, unchecked: false }))))
        };
        if !setting.fresh
            && let Some(record) = self.find(&fingerprint, cell)?
        {
            return reused(record);
        }
        stop::check()?;
        // Fail before hours of work, not after.
        self.store.check_writable()?;
        let claim = match self.sharing.as_ref().map(|sharing| sharing.take(&fingerprint, cell, progress)) {
            Some(Err(elsewhere)) => return Ok(Attempt::Elsewhere(*elsewhere)),
            Some(Ok(claim)) => claim,
            None => None,
        };
        // Another process may have finished it between the look and the claim.
        if claim.is_some()
            && !setting.fresh
            && let Some(record) = self.store.named(&fingerprint, cell)?
        {
            let done = reused(record)?;
            claim.into_iter().for_each(Claim::finish);
            return Ok(done);
        }

        let snapshot = self.store.snapshot(&fingerprint);
        if setting.fresh {
            remove_all(&snapshot)?;
        }
        let mut features = FeatureLog::default();
        let needs = planned.protocol.needs();
        if agreed.announcement.is_some() {
            agreed.announce(self.model.get()?.encoder.as_ref(), needs.want(input.pooling))?;
        }
        let setup = match needs.takes_setup() {
            true => {
                Some(self.setup(task, input, snapshot.clone(), needs.trains_encoder(), origin, progress)?)
            }
            false => None,
        };
        let mut speed = None;
        let outcome = if needs.trains_encoder() {
            protocol.run(Session { task, seed: cell.seed, source: None, setup, accelerator: None })?
        } else {
            let (encoding, begun) = (known.bank.busy(), Instant::now());
            let encoded = known.bank.encoded();
            let mut source = self.source(input, cell, origin, known, progress)?;
            if let Some(other) = &mut beside {
                source = other.joined(source, cell, needs, progress)?;
            }
            let mut source = LoggedSource { source, log: &mut features };
            let accelerator = Accelerator::of(&setting.device_name, &setting.device);
            let session = Session { task, seed: cell.seed, source: Some(&mut source), setup, accelerator };
            let outcome = protocol.run(session);
            drop(source);
            let of_other = beside.as_mut().and_then(|other| other.known.bank.waiting());
            let outcome = match (outcome, known.bank.waiting().or(of_other)) {
                (Err(_), Some(Waiting { claims, key, holder })) => {
                    return Ok(Attempt::Elsewhere(Elsewhere::new(&fingerprint, holder, claims, key)));
                }
                (outcome, _) => outcome?,
            };
            let (busy, all) = ((known.bank.busy() - encoding).as_secs_f64(), begun.elapsed().as_secs_f64());
            let images = known.bank.encoded() - encoded;
            speed = (images > 0 && busy > 0.0 && beside.is_none()).then(|| Speed {
                images_per_second: images as f64 / busy,
                peak_memory_bytes: memory::peak(&setting.device, &setting.device_name),
            });
            tracing::debug!("{}: {busy:.2} of {all:.2} seconds in the encoder", task.name);
            outcome
        };
        let limit = planned.protocol.limit().unwrap_or(usize::MAX);
        let samples =
            splits.iter().map(|&split| (split.to_string(), input.dataset.samples(split).len().min(limit)));
        let graphics = graphics::of(&setting.device_name);
        let mut record = Record {
            schema: SCHEMA,
            fingerprint,
            settings: deciding.settings()?,
            request: self.request(task, planned)?,
            predictions: None,
            demo: setting.demo,
            short: planned.protocol.is_short(),
            cell: cell.clone(),
            metric: planned.protocol.metric(task),
            value: outcome.value,
            interval: outcome.interval,
            scores: outcome.scores,
            selected: outcome.selected,
            samples: samples.collect(),
            protocol_settings: protocol_settings(&planned.protocol)?,
            notes: origin.vectors.iter().map(|files| Note::new("vectors", files.described())).collect(),
            provenance: Provenance {
                terrabench: setting.program.version.clone(),
                git_revision: setting.program.revision.clone(),
                git_dirty: setting.program.is_dirty,
                configs: self.configs(cell),
                weights: deciding.weights.to_owned(),
                coverage: self.coverage,
                data: deciding.data.to_owned(),
                features: None,
                sensor: deciding.sensor,
                images: recorded_images(setting.model, task),
                pooling: deciding.pooling,
                channels: deciding.channels.to_string(),
                inputs: setting.inputs,
                bands: deciding.bands.to_vec(),
                band_names: deciding.band_names.to_owned(),
                imputed: deciding.imputed.to_vec(),
                matched: if origin.vectors.is_none() { input.matches() } else { Vec::new() },
                normalization: deciding.normalization.to_owned(),
                image_size: deciding.image_size,
                depth: setting.model.depth,
                resize: deciding.resize,
                beside: beside.as_ref().map(Other::described),
                speed,
                precision: setting.precision,
                declared: origin.vectors.map(|files| files.declared().clone()).unwrap_or_default(),
                origin: None,
                metadata: deciding.metadata.kinds(),
                stand_ins: stand_ins(setting.model, task, deciding.metadata),
                command: setting.command.of(cell),
                device: setting.device_name.clone(),
                gpu: graphics.as_ref().map(|graphics| graphics.gpu.clone()),
                driver: graphics.map(|graphics| graphics.driver),
                threads: setting.threads,
                finished: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
                wall_seconds: start.elapsed().as_secs_f64(),
            },
        };
        let audited = Audited {
            task,
            protocol: &*planned.protocol,
            input,
            demo: setting.demo,
            band_names: origin.vectors.is_none().then_some(deciding.band_names),
            features: &features,
        };
        audited.fill(&mut record, &self.earlier, self.store);
        let test = input.dataset.samples(Split::Test);
        let used = subset(test.len(), planned.protocol.limit());
        let samples = used.iter().map(|i| test[*i].clone()).collect();
        let sheet = match outcome.masks.as_slice() {
            [] => None,
            masks => self.sheet(&record, task, input, masks, &used)?,
        };
        // Predictions are written before the record, so that every record has its predictions.
        let named = Named {
            samples,
            predictions: outcome.predictions,
            scoring: Some(outcome.scoring),
            supplement: outcome.supplement,
        };
        if let (Some(sharing), Some(false)) = (&self.sharing, claim.as_ref().map(Claim::is_mine)) {
            progress.note("this process gave no sign of life for too long, and another took the cell over");
            let fingerprint = record.fingerprint;
            let claims = sharing.claims().clone();
            return Ok(Attempt::Elsewhere(Elsewhere::new(&fingerprint, None, claims, fingerprint.clone())));
        }
        let (record, path) = self.store.stage(&record, &named, sheet.as_deref())?.commit()?;
        remove_all(&snapshot)?;
        claim.into_iter().for_each(Claim::finish);
        Ok(Attempt::Finished(Ok(Box::new(Done { record, path, reused: false, unchecked: false }))))
    }

    /// Finds the record of a cell. Reads no list of all records if none has the fingerprint, which is most of the time.
    fn find(&self, fingerprint: &str, cell: &Cell) -> Result<Option<Record>> {
        if let Some(record) = self.store.named(fingerprint, cell)? {
            return Ok(Some(record));
        }
        let digits = match self.recorded_digits.get() {
            Some(digits) => digits,
            None => {
                let read = self.store.digits()?;
                self.recorded_digits.get_or_init(|| read)
            }
        };
        // Records under other labels were there before this run.
        if Store::is_among(fingerprint, digits) { self.store.find(fingerprint, cell) } else { Ok(None) }
    }

    /// Takes in what files and user say about features that were scored before: labels, which change no number. Removes the record of
    /// the same features under an earlier name of the model: nothing else would, and its row would stay.
    fn relabelled(&self, record: Record, files: &VectorTask, progress: &dyn Progress) -> Result<Record> {
        let mut labelled = record.clone();
        labelled.provenance.declared.clone_from(files.declared());
        match self.setting.configs.get("model") {
            Some(hash) => labelled.provenance.configs.insert("model".to_owned(), hash.clone()),
            None => labelled.provenance.configs.remove("model"),
        };
        let described = Note::new("vectors", files.described());
        let notes = labelled.notes.iter_mut().filter(|note| note.kind == described.kind);
        notes.for_each(|note| note.clone_from(&described));
        if labelled != record {
            self.store.put(&labelled)?;
        }
        for other in self.store.remove_namesakes(&labelled)? {
            let Cell { model, backbone, .. } = other.cell;
            progress.note(&format!("these features were scored before as {model} {backbone}: renamed"));
        }
        Ok(labelled)
    }

    /// Measures how long reading and encoding an image takes, in seconds, from the first test images, at most `most` of them. Also
    /// returns the number of images in all splits.
    ///
    /// # Errors
    /// If data or weights are missing, or an image cannot be encoded.
    pub fn seconds_per_image(&self, task: &Task, partition: &str, most: usize) -> Result<(f64, usize)> {
        let Agreed { input, .. } = self.opened(task, partition)?;
        let setting = self.setting;
        let strategy = input
            .strategies
            .first()
            .ok_or_else(|| Error::mismatch(format!("{}: no normalisation to measure", task.name)))?;
        let extractor = Extractor {
            encoder: self.model.get()?.encoder.as_ref(),
            device: &setting.device,
            further: self.model.replicas()?,
            input: &input,
            strategy,
            turn: Dihedral::Identity,
            batch_size: self.batch_size(&input)?,
            readers: setting.threads,
        };
        let count = input.dataset.samples(Split::Test).len().min(most);
        // The first images pay for what is made once.
        let first: Vec<usize> = (0..count.min(1)).collect();
        extractor.extract(Split::Test, &first, &mut |_| Ok(()))?;
        let all: Vec<usize> = (0..count).collect();
        let start = Instant::now();
        extractor.extract(Split::Test, &all, &mut |_| Ok(()))?;
        let seconds = start.elapsed().as_secs_f64() / count.max(1) as f64;
        Ok((seconds, Split::ALL.iter().map(|split| input.dataset.samples(*split).len()).sum()))
    }

    /// Opens a task's files.
    ///
    /// # Errors
    /// If they are missing, or do not suit the model.
    pub fn input(&self, task: &Task, partition: &str) -> Result<Input> {
        let Setting { suite, data, model, input, .. } = self.setting;
        Input::open(suite, task, partition, data.as_ref().map_err(Error::clone)?, model, input)
    }

    /// Opens a task's files for a model that this program computes itself.
    fn opened(&self, task: &Task, partition: &str) -> Result<Agreed> {
        let setting = self.setting;
        let data = setting.data.clone()?;
        let input = Input::open(setting.suite, task, partition, &data, setting.model, &setting.input)?;
        match self.weights_id(None)? {
            Some(weights) => Ok(Agreed { input, weights, announcement: None }),
            None => Err(Error::request(format!(
                "{} {}: an encoder in another process cannot be timed, or stand beside another model",
                setting.model.name, setting.model.backbone
            ))
            .help("choose a model of configs/models/, or score features from files")),
        }
    }

    /// Returns the blake3 hashes of the config files behind a cell.
    fn configs(&self, cell: &Cell) -> BTreeMap<String, String> {
        let mut configs = self.setting.configs.clone();
        if let Some(hash) = self.setting.protocol_configs.get(&cell.protocol) {
            configs.insert("protocol".to_owned(), hash.clone());
        }
        configs
    }

    /// Draws the predicted masks with the most varied labels as a PNG; `None` if the bands cannot be shown as colours. `used`
    /// holds the indices in the test split of the samples that were used.
    fn sheet(
        &self,
        record: &Record,
        task: &Task,
        input: &Input,
        masks: &[Shown],
        used: &[usize],
    ) -> Result<Option<Vec<u8>>> {
        let Some((bands, colors)) = self.shown_bands(input)? else { return Ok(None) };
        let mut examples = Vec::new();
        for Shown { image, prediction } in masks {
            let mut sample = input.dataset.read(Split::Test, used[*image], &bands)?;
            let (Target::Mask(label), Some(image)) = (sample.target, sample.images.pop()) else { continue };
            // Masks that were resized for training are drawn at the image's size.
            let (rows, columns) = label.dim();
            let prediction = resize::nearest(prediction.view(), rows, columns, Nearest::Floor)?;
            examples.push(Example { name: sample.name, image: image.pixels, label, prediction });
        }
        let cell = &record.cell;
        let heading = Heading {
            title: format!("{}, {} {}", task.title, cell.model, cell.backbone),
            line: format!(
                "{}{}{}, partition {}, seed {}: mean IoU {:.1}",
                if record.demo { "demo, generated data; " } else { "" },
                if record.provenance.partial_weights() {
                    format!("{}; ", record.provenance.coverage())
                } else {
                    String::new()
                },
                cell.protocol,
                cell.partition,
                cell.seed,
                record.value
            ),
            colors,
        };
        sheet::sheet(&heading, &task.class_labels(), &sheet::most_to_see(examples)).map(Some)
    }

    /// Chooses the image that a sheet shows: the last one in true colour, else the last one that can be shown as colours.
    /// Returns the bands to read per image (none for the other images) and the colours' name.
    fn shown_bands(&self, input: &Input) -> Result<Option<ShownBands>> {
        let mut shown = None;
        for (place, image) in input.images.iter().enumerate() {
            let stored = &image.selection.stored;
            let shown_as = if self.setting.model.architecture.takes_stored_pixels() {
                let names = self.setting.suite.band_names(&input.task);
                let named = names.iter().filter(|(_, name)| stored.contains(name));
                let (bands, names): (Vec<Band>, Vec<String>) =
                    named.map(|(band, name)| (*band, name.clone())).unzip();
                sheet::colors(&bands, &names)
            } else {
                sheet::colors(&image.bands, stored)
            };
            let Some((names, colors)) = shown_as else { continue };
            if colors == sheet::TRUE_COLOR
                || shown.as_ref().is_none_or(|(_, other)| *other != sheet::TRUE_COLOR)
            {
                let mut wanted = vec![Vec::new(); place];
                wanted.push(names.to_vec());
                shown = Some((wanted, colors));
            }
        }
        Ok(shown)
    }

    /// Returns the number of images per batch, which large devices find by themselves.
    fn batch_size(&self, input: &Input) -> Result<BatchSize> {
        let Setting { model, device_name, precision, .. } = self.setting;
        let grows = !crate::device::prefers_single_images(&self.setting.device);
        let what = (model.deciding(), input.image_size(), device_name, precision);
        Ok(self.setting.batch_sizes.of(&fingerprint(&what)?, grows))
    }

    /// Creates the source of the frozen model's features.
    fn source<'s>(
        &'s self,
        input: &'s Input,
        cell: &'s Cell,
        origin: Origin<'s>,
        known: &'s mut KnownFeatures,
        progress: &'s dyn Progress,
    ) -> Result<Box<dyn FeatureSource + 's>> {
        let setting = self.setting;
        let Origin { weights_id, vectors } = origin;
        if let Some(vectors) = vectors {
            let root = setting.data.as_deref().map_err(|error| (*error).clone())?;
            return Ok(Box::new(VectorSource {
                vectors,
                input,
                suite: setting.suite,
                root,
                partition: &cell.partition,
                device: &setting.device,
                readers: setting.threads,
                known,
                progress,
            }));
        }
        Ok(Box::new(EncoderSource {
            encoder: self.model.get()?.encoder.as_ref(),
            identity: Identity {
                model: setting.model,
                weights: weights_id,
                device: &setting.device_name,
                precision: setting.precision,
            },
            input,
            partition: &cell.partition,
            device: &setting.device,
            further: self.model.replicas()?,
            batch_size: self.batch_size(input)?,
            readers: setting.threads,
            map_limit: setting.cache_limit,
            known,
            progress,
        }))
    }

    /// Returns the model's feature maps. An encoder that alone knows them must have been told that they are wanted.
    fn map_levels(&self) -> Result<Vec<MapLevel>> {
        let Setting { model, .. } = self.setting;
        if model.architecture.states_maps() {
            return Ok(model.architecture.maps());
        }
        let encoder = &self.model.get()?.encoder;
        let levels = encoder.remote().map_or(Ok(Vec::new()), RemoteEncoder::map_levels)?;
        if levels.len() != plan::MAPS {
            let problem =
                format!("the protocol needs {} feature maps, the encoder gives {}", plan::MAPS, levels.len());
            return Err(Error::mismatch(problem)
                .help("give one map per stage, or four layers' of a plain transformer"));
        }
        Ok(levels)
    }

    /// Collects what a protocol needs to train with gradients.
    fn setup<'s>(
        &self,
        task: &'s Task,
        input: &'s Input,
        snapshot: PathBuf,
        trains_encoder: bool,
        origin: Origin<'_>,
        progress: &'s dyn Progress,
    ) -> Result<TrainingSetup<'s>> {
        let setting = self.setting;
        let device = setting.device.clone().autodiff();
        let encoder = trains_encoder.then(|| self.model.trainable(&device)).transpose()?;
        Ok(TrainingSetup {
            task,
            input,
            strategy: input.only()?,
            encoder,
            maps: match origin.vectors {
                // One feature per sample, however many images it has.
                Some(files) => files.map_levels(),
                None => input.spec().map_levels(self.map_levels()?),
            },
            on_device: !crate::device::is_host(&setting.device)
                && DevicePreprocess::fits(&input.only()?.preprocess, &setting.device),
            device,
            batch_size: setting.batch_sizes.given_or_small(),
            readers: setting.threads,
            snapshot,
            progress,
        })
    }
}

/// Where the features of a task's cells come from.
#[derive(Clone, Copy)]
struct Origin<'a> {
    weights_id: &'a str,
    /// The task's files, if another program computed the features.
    vectors: Option<&'a VectorTask>,
}

/// How a protocol pools the model's tokens; `None` if it does not use pooled features.
fn recorded_pooling(model: &ModelConfig, needs: Needs) -> Option<Pooling> {
    let pooling = model.pooling();
    match needs {
        Needs::Pooled => Some(pooling),
        Needs::TrainablePooled => Some(model.architecture.finetuned_pooling(pooling)),
        Needs::Tokens | Needs::Maps | Needs::TrainableMaps => None,
    }
}

/// Names what the model's original takes and the task does not give.
fn stand_ins(model: &ModelConfig, task: &Task, given: Metadata) -> Vec<String> {
    let further = task.images.iter().map(|image| model.told(task, image));
    let sensors: Vec<Sensor> = std::iter::once(told(model, task)).chain(further).collect();
    model.architecture.stand_ins(given, &sensors)
}

/// Returns the sensor that the model is told of a task's first image.
fn told(model: &ModelConfig, task: &Task) -> Sensor {
    task.sources().first().map_or(task.input_sensor, |image| model.told(task, image))
}

/// Returns the images of a sample for the record; empty for tasks of a single image.
fn recorded_images(model: &ModelConfig, task: &Task) -> Vec<RecordedImage> {
    let recorded =
        |image: &TaskImage| RecordedImage { sensor: model.told(task, image), date: image.date.clone() };
    task.images.iter().map(recorded).collect()
}
