//! Features that were extracted before, in memory and in the cache.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::Duration;

use ndarray::{Array2, ArrayView1};

use super::{Extractor, Features, Identity, sweep};
use crate::audit::observed::Observed;
use crate::claims::{Claim, Claims, Holder, Taken};
use crate::features::cache::{About, Cache, CachedSample, Entry};
use crate::progress::Progress;
use crate::score::decision::unless_diverged;
use crate::task::Split;
use crate::transform::augment::Dihedral;
use crate::{Error, Result};

/// Samples per chunk of the cache: the most that a killed run loses.
pub const CHUNK: usize = 256;

/// The features extracted so far, in memory and, with a cache, on disk. Samples are identified by their content, so that
/// partitions, protocols and seeds share their features.
///
/// With a cache, only the features of the most recent strategy stay in memory; without one, all do.
#[derive(Debug, Default)]
pub struct FeatureBank {
    cache: Option<Cache>,
    /// Rows by [`Extractor::key`].
    known: HashMap<String, Rows>,
    busy: Duration,
    /// The samples of a split and the turn for which the features of all strategies were extracted at once.
    shared: Vec<(Split, Vec<String>, Dihedral)>,
    encoded: usize,
    /// Claims on the cache's entries, if several processes share it.
    claims: Option<Claims>,
    /// The entry that another process extracts, if that ended the last request.
    waiting: Option<Waiting>,
}

/// Features that another process extracts.
#[derive(Debug)]
pub struct Waiting {
    /// The claims among which theirs is.
    pub claims: Claims,
    /// The key of their claim.
    pub key: String,
    /// Who extracts them.
    pub holder: Option<Holder>,
}

impl FeatureBank {
    /// Creates an empty bank, optionally backed by a cache.
    pub fn new(cache: Option<Cache>) -> Self {
        FeatureBank { cache, ..Self::default() }
    }

    /// Lets several processes share the extraction: only the one that holds an entry's claim extracts. For the others, the
    /// request fails, and [`FeatureBank::waiting`] says for whom.
    #[must_use]
    pub fn sharing(mut self, claims: Option<Claims>) -> Self {
        self.claims = claims;
        self
    }

    /// Returns, once, for whose features the last request would have had to wait.
    pub fn waiting(&mut self) -> Option<Waiting> {
        self.waiting.take()
    }

    /// Claims the extraction for an entry; `None` where nothing can be claimed.
    fn claim(&mut self, key: &str, what: &str, progress: &dyn Progress) -> Result<Option<Claim>> {
        let (Some(claims), true) = (&self.claims, self.cache.is_some()) else { return Ok(None) };
        match claims.take(key, what) {
            Ok(Taken::Mine(claim)) => Ok(Some(claim)),
            Ok(Taken::Held(holder)) => {
                let place = holder.as_ref().map_or("another process".to_owned(), Holder::place);
                self.waiting = Some(Waiting { claims: claims.clone(), key: key.to_owned(), holder });
                Err(Error::mismatch(format!("{what}: the features are being extracted by {place}")))
            }
            Err(problem) => {
                progress.note(&format!("cannot claim an extraction, going on without: {problem}"));
                self.claims = None;
                Ok(None)
            }
        }
    }

    /// Returns the time spent in encoders so far.
    pub fn busy(&self) -> Duration {
        self.busy
    }

    /// Returns the number of images encoded so far.
    pub fn encoded(&self) -> usize {
        self.encoded
    }

    /// Returns the features of a whole split and extracts only the samples that are still missing.
    ///
    /// # Errors
    /// Like [`Extractor::extract`]. Problems with the cache are reported to `progress` and cost only time.
    pub fn features(
        &mut self,
        extractor: &Extractor,
        identity: Identity,
        split: Split,
        progress: &dyn Progress,
    ) -> Result<Features> {
        let input = extractor.input;
        let (names, contents) = (input.dataset.samples(split), input.contents(split)?);
        let key = extractor.key(identity)?;
        let entry = self.cache.as_ref().map(|cache| cache.entry(&key));
        if !self.known.contains_key(&key) {
            let mut rows = Rows::default();
            if let Some(entry) = &entry {
                // Features of other strategies can be read from the cache again.
                self.known.clear();
                let mut note = |line: &str| progress.note(line);
                let read = entry.read_new(extractor.width(), &mut rows.chunks, &mut note);
                match read {
                    Ok(read) => rows.extend(read),
                    Err(problem) => progress.note(&format!("cannot read the feature cache: {problem}")),
                }
            }
            self.known.insert(key.clone(), rows);
        }
        let lacks = |rows: &Rows| contents.iter().any(|content| !rows.contains(content));
        let claim = match self.known.get(&key).is_some_and(lacks) {
            true => self.claim(&key, &format!("features of {split}"), progress)?,
            false => None,
        };
        let rows = self.known.entry(key).or_default();
        if let (Some(_), Some(entry)) = (&claim, &entry) {
            // Whoever held the claim before may have extracted what is missing here.
            let mut note = |line: &str| progress.note(line);
            let new = entry.read_new(extractor.width(), &mut rows.chunks, &mut note);
            rows.extend(new.unwrap_or_default());
        }
        // Samples with the same content are encoded once.
        let mut new: HashSet<blake3::Hash> = HashSet::new();
        let missing: Vec<usize> =
            (0..names.len()).filter(|&i| !rows.contains(&contents[i]) && new.insert(contents[i])).collect();
        if !missing.is_empty() {
            let what = match extractor.input.strategies.len() {
                1 => split.to_string(),
                _ => format!("{split} {}", extractor.strategy.name),
            };
            let step = progress.begin(&what, missing.len());
            let cached = entry.is_some();
            let mut fresh = Fresh::new(entry, extractor.about(identity), progress);
            let busy = extractor.extract(split, &missing, &mut |batch| {
                step.advance(batch.samples.len());
                for (target, features) in batch.labels.into_iter().zip(batch.matrix.rows()) {
                    let index = missing[fresh.rows.len()];
                    let seen = extractor.input.seen.get(split, index).ok_or_else(|| {
                        Error::mismatch(format!("{split} {}: the sample was not read", names[index]))
                    })?;
                    let (content, pixels) = (contents[index], seen.pixels().clone());
                    fresh.rows.push(CachedSample { content, target, pixels, features: features.to_vec() });
                }
                if fresh.rows.len() - fresh.kept >= CHUNK {
                    fresh.keep();
                }
                Ok(())
            });
            // Features extracted before a failure need not be extracted again.
            fresh.keep();
            self.busy += busy?;
            self.encoded += fresh.rows.len();
            rows.chunks.extend(fresh.chunks);
            rows.extend(fresh.rows);
            if cached && fresh.entry.is_none() {
                self.cache = None;
            }
        }
        if let Some(claim) = claim {
            claim.finish();
        }
        let mut matrix = Array2::zeros((names.len(), extractor.width()));
        let mut labels = Vec::with_capacity(names.len());
        let seen = &extractor.input.seen;
        for (i, ((name, content), mut out)) in names.iter().zip(&contents).zip(matrix.rows_mut()).enumerate()
        {
            let row = rows
                .get(content)
                .ok_or_else(|| Error::mismatch(format!("{name}: the sample was not encoded")))?;
            out.assign(&ArrayView1::from(&row.features));
            labels.push(row.target.clone());
            // Samples whose features were cached were not read now; the cache holds their summaries.
            if !seen.holds(split, i) {
                seen.note(split, i, Observed::new(row.pixels.clone(), &row.target));
            }
        }
        Ok(Features { samples: names.to_vec(), matrix, labels })
    }
}

impl FeatureBank {
    /// Extracts what is missing of a split for all of these extractors, which differ in their strategy alone: each batch is read
    /// and uploaded once, and normalised on the device. A strategy whose features are not finite is left out; asking for its
    /// features says why. Does nothing for fewer than two strategies.
    ///
    /// # Errors
    /// Like [`FeatureBank::features`].
    pub fn extract_for_all(
        &mut self,
        extractors: Vec<Extractor>,
        identity: Identity,
        split: Split,
        progress: &dyn Progress,
    ) -> Result<()> {
        let Some(first) = extractors.first() else { return Ok(()) };
        let input = first.input;
        let (names, contents) = (input.dataset.samples(split), input.contents(split)?);
        let asked = (split, names.to_vec(), first.turn);
        if self.shared.contains(&asked) {
            return Ok(());
        }
        self.shared.push(asked);
        let mut left = Vec::new();
        for extractor in extractors {
            let key = extractor.key(identity)?;
            let entry = self.cache.as_ref().map(|cache| cache.entry(&key));
            let read = |entry: &Entry| entry.read(extractor.width(), &mut |line| progress.note(line));
            let known: HashSet<blake3::Hash> = match (self.known.get(&key), &entry) {
                (Some(rows), _) => rows.index.keys().copied().collect(),
                // What cannot be read is computed.
                (None, Some(entry)) => {
                    read(entry).unwrap_or_default().into_iter().map(|row| row.content).collect()
                }
                (None, None) => HashSet::new(),
            };
            if contents.iter().any(|content| !known.contains(content)) {
                let about = extractor.about(identity);
                left.push((key, extractor, known, Fresh::new(entry, about, progress)));
            }
        }
        if left.len() < 2 {
            return Ok(());
        }
        // Dropped, and so given back, if another process holds one of them.
        let mut claims = Vec::new();
        for (key, extractor, known, fresh) in &mut left {
            let what = format!("features of {split}, {} normalisations", extractor.input.strategies.len());
            if let Some(claim) = self.claim(key, &what, progress)? {
                claims.push(claim);
                let read = |entry: &Entry| entry.read(extractor.width(), &mut |line| progress.note(line));
                let rows = fresh.entry.as_ref().and_then(|entry| read(entry).ok()).unwrap_or_default();
                known.extend(rows.into_iter().map(|row| row.content));
            }
        }
        let mut new = HashSet::new();
        let missing: Vec<usize> = (0..names.len())
            .filter(|&i| {
                left.iter().any(|(_, _, known, _)| !known.contains(&contents[i])) && new.insert(contents[i])
            })
            .collect();
        if missing.is_empty() {
            // Another process extracted them between the look and the claim.
            left.iter().for_each(|(key, ..)| drop(self.known.remove(key)));
            claims.into_iter().for_each(Claim::finish);
            return Ok(());
        }
        let step = progress.begin(&format!("{split}, {} normalisations", left.len()), missing.len());
        let mut parts: Vec<_> = Vec::new();
        let mut extractors = Vec::new();
        for (key, extractor, known, fresh) in left {
            extractors.push(extractor);
            parts.push((key, known, fresh, 0));
        }
        let mut told = 0;
        let busy = sweep::extract_each(&extractors, split, &missing, &mut |place, batch| {
            let (_, known, fresh, done) = &mut parts[place];
            let batch = match unless_diverged(batch)? {
                Some(batch) => batch,
                None => return Ok(false),
            };
            for (target, features) in batch.labels.into_iter().zip(batch.matrix.rows()) {
                let index = missing[*done];
                *done += 1;
                if known.contains(&contents[index]) {
                    continue;
                }
                let seen = input.seen.get(split, index).ok_or_else(|| {
                    Error::mismatch(format!("{split} {}: the sample was not read", names[index]))
                })?;
                let (content, pixels) = (contents[index], seen.pixels().clone());
                fresh.rows.push(CachedSample { content, target, pixels, features: features.to_vec() });
            }
            if *done > told {
                step.advance(*done - told);
                told = *done;
            }
            if fresh.rows.len() - fresh.kept >= CHUNK {
                fresh.keep_only_on_disk();
            }
            Ok(true)
        });
        for (key, _, mut fresh, _) in parts {
            fresh.keep_only_on_disk();
            match &fresh.entry {
                // Its features are read from the cache when they are asked for.
                Some(_) => drop(self.known.remove(&key)),
                None => self.known.entry(key).or_default().extend(fresh.rows),
            }
        }
        self.busy += busy?;
        claims.into_iter().for_each(Claim::finish);
        Ok(())
    }
}

/// Features fresh from the encoder, on their way into the cache.
struct Fresh<'a> {
    /// `None` without a cache, or if it cannot be written.
    entry: Option<Entry>,
    about: About,
    rows: Vec<CachedSample>,
    /// How many of the rows are already in the cache.
    kept: usize,
    /// The chunks that hold them.
    chunks: Vec<PathBuf>,
    progress: &'a dyn Progress,
}

impl<'a> Fresh<'a> {
    fn new(entry: Option<Entry>, about: About, progress: &'a dyn Progress) -> Self {
        Fresh { entry, about, rows: Vec::new(), kept: 0, chunks: Vec::new(), progress }
    }
}

impl Fresh<'_> {
    /// Writes the rows that are not in the cache yet.
    fn keep(&mut self) {
        let new = &self.rows[self.kept..];
        if let Some(entry) = &self.entry
            && !new.is_empty()
        {
            match entry.append(&self.about, new) {
                Ok(chunk) => self.chunks.push(chunk),
                Err(problem) => {
                    let problem = format!("cannot write the feature cache, continuing without it: {problem}");
                    self.progress.note(&problem);
                    self.entry = None;
                }
            }
        }
        self.kept = self.rows.len();
    }

    /// Like [`Fresh::keep`], and forgets what is in the cache.
    fn keep_only_on_disk(&mut self) {
        self.keep();
        if self.entry.is_some() {
            self.rows.clear();
            self.kept = 0;
        }
    }
}

/// Rows by the content of their samples.
#[derive(Debug, Default)]
struct Rows {
    /// The chunks of the cache that were read or written.
    chunks: HashSet<PathBuf>,
    index: HashMap<blake3::Hash, usize>,
    rows: Vec<CachedSample>,
}

impl Rows {
    fn get(&self, content: &blake3::Hash) -> Option<&CachedSample> {
        self.rows.get(*self.index.get(content)?)
    }

    fn contains(&self, content: &blake3::Hash) -> bool {
        self.index.contains_key(content)
    }

    fn extend(&mut self, rows: impl IntoIterator<Item = CachedSample>) {
        for row in rows {
            if !self.contains(&row.content) {
                self.index.insert(row.content, self.rows.len());
                self.rows.push(row);
            }
        }
    }
}
