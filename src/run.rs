//! One cell from start to record.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use burn::tensor::Device;

use crate::config::{ModelConfig, Protocol};
use crate::features::{Extractor, FeatureBank, Input, InputOptions};
use crate::model::weights::Weights;
use crate::model::{self, LoadedModel};
use crate::plan::{PlannedCell, TaskPlan};
use crate::progress::Progress;
use crate::protocol::linear_probe::{self, Flip};
use crate::protocol::{knn, logistic};
use crate::record::{Cell, Deciding, PROTOCOL_VERSION, Provenance, Record, SCHEMA, Store};
use crate::suite::{Suite, Task};
use crate::{Error, Result};

/// What all cells of a run have in common.
pub struct Setting<'a> {
    pub suite: &'a Suite,
    pub model: &'a ModelConfig,
    pub weights: &'a Weights,
    pub allow_partial: bool,
    /// The suite's folder of data.
    pub data: PathBuf,
    pub demo: bool,
    pub input: InputOptions,
    pub device: Device,
    /// As on the command line.
    pub device_name: String,
    pub batch_size: usize,
    pub threads: usize,
    /// Compute finished cells again.
    pub fresh: bool,
    pub git_revision: Option<String>,
}

/// A cell's record and where it is.
#[derive(Debug, Clone)]
pub struct Done {
    pub record: Record,
    pub path: PathBuf,
    /// It was there before this run.
    pub reused: bool,
}

/// Runs cells.
pub struct Runner<'a> {
    setting: &'a Setting<'a>,
    store: &'a Store,
    weights_id: String,
    model: LazyModel<'a>,
}

/// The model, loaded by the first cell that needs it: a run whose cells are all recorded loads none.
struct LazyModel<'a> {
    setting: &'a Setting<'a>,
    loaded: Option<LoadedModel>,
}

impl LazyModel<'_> {
    fn get(&mut self) -> Result<&LoadedModel> {
        let Setting { model, weights, allow_partial, device, .. } = self.setting;
        let loaded = match self.loaded.take() {
            Some(loaded) => loaded,
            None => model::load(model, weights, *allow_partial, device)?,
        };
        Ok(self.loaded.insert(loaded))
    }
}

impl<'a> Runner<'a> {
    /// Partial weights are loaded at once, since only then it is known whether parameters stay random.
    ///
    /// # Errors
    /// Where the weights' file cannot be read.
    pub fn new(setting: &'a Setting<'a>, store: &'a Store) -> Result<Self> {
        let mut model = LazyModel { setting, loaded: None };
        let weights_id =
            if setting.allow_partial { model.get()?.weights_id.clone() } else { setting.weights.id()? };
        Ok(Runner { setting, store, weights_id, model })
    }

    /// Runs a task's cells. One that fails does not keep the others from running.
    pub fn run_task(&mut self, plan: &TaskPlan, progress: &dyn Progress) -> Vec<(Cell, Result<Done>)> {
        let mut bank = FeatureBank::default();
        let mut outcomes = Vec::new();
        for cells in plan.cells.chunk_by(|a, b| a.cell.partition == b.cell.partition) {
            let partition = &cells[0].cell.partition;
            let setting = self.setting;
            let input = Input::open(
                setting.suite,
                &plan.task,
                partition,
                &setting.data,
                setting.model,
                &setting.input,
            );
            outcomes.extend(cells.iter().map(|planned| {
                let done = match &input {
                    Ok(input) => self.run_cell(&plan.task, planned, input, &mut bank, progress),
                    Err(error) => Err(error.clone()),
                };
                (planned.cell.clone(), done)
            }));
        }
        outcomes
    }

    fn run_cell(
        &mut self,
        task: &Task,
        planned: &PlannedCell,
        input: &Input,
        bank: &mut FeatureBank,
        progress: &dyn Progress,
    ) -> Result<Done> {
        let start = Instant::now();
        let setting = self.setting;
        let cell = &planned.cell;
        let splits = planned.protocol.splits();
        let deciding = Deciding {
            protocol_version: PROTOCOL_VERSION,
            demo: setting.demo,
            cell,
            task,
            protocol: &planned.protocol,
            model: setting.model,
            weights: &self.weights_id,
            data: &input.dataset.fingerprint(splits)?,
            stem: input.stem,
            bands: &input.selection.stored,
            band_names: setting.input.band_names(task),
            imputed: &input.selection.imputed,
            normalization: &setting.input.normalization,
            image_size: input.preprocess.height,
        };
        let fingerprint = deciding.fingerprint()?;
        if !setting.fresh
            && let Some(record) = self.store.get(&fingerprint)?
        {
            return Ok(Done { path: self.store.path(&record), record, reused: true });
        }

        let extractor = Extractor {
            backbone: self.model.get()?.backbone.as_ref(),
            device: &setting.device,
            input,
            batch_size: setting.batch_size,
            readers: setting.threads,
        };
        let mut features = |split| bank.features(&extractor, split, progress);
        let outcome = match &planned.protocol {
            Protocol::Knn(config) => knn::run(config, task, cell.seed, features)?,
            Protocol::LinearProbe(config) => {
                linear_probe::run(config, task, cell.seed, |split, flip| match flip {
                    Flip { horizontal: false, vertical: false } => features(split),
                    _ => Err(Error::request("features of flipped images cannot be extracted yet")
                        .help("choose a protocol with augmentation = \"none\"")),
                })?
            }
            Protocol::Logistic(config) => logistic::run(config, task, cell.seed, features)?,
        };
        let samples =
            splits.iter().map(|&split| (split.to_string(), input.dataset.samples(split).len())).collect();
        let record = Record {
            schema: SCHEMA,
            fingerprint,
            settings: deciding.settings()?,
            demo: setting.demo,
            cell: cell.clone(),
            metric: task.metric,
            value: outcome.value,
            interval: outcome.interval,
            scores: outcome.scores,
            selected: outcome.selected,
            samples,
            provenance: Provenance {
                terrabench: env!("CARGO_PKG_VERSION").to_owned(),
                git_revision: setting.git_revision.clone(),
                weights: deciding.weights.to_owned(),
                data: deciding.data.to_owned(),
                stem: deciding.stem,
                bands: deciding.bands.to_vec(),
                band_names: deciding.band_names.to_owned(),
                imputed: deciding.imputed.to_vec(),
                normalization: deciding.normalization.to_owned(),
                image_size: deciding.image_size,
                device: setting.device_name.clone(),
                threads: setting.threads,
                finished: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
                wall_seconds: start.elapsed().as_secs_f64(),
            },
        };
        let path = self.store.put(&record)?;
        Ok(Done { record, path, reused: false })
    }
}

/// The git revision of the checkout at `folder`, with `-dirty` where tracked files differ from it.
pub fn git_revision(folder: &Path) -> Option<String> {
    let git = |args: &[&str]| {
        let output = Command::new("git").arg("-C").arg(folder).args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let revision = git(&["rev-parse", "HEAD"])?;
    let dirty = !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
    Some(if dirty { format!("{revision}-dirty") } else { revision })
}
