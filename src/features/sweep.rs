//! Features of a split under several normalisations, for devices that normalise by themselves: each batch is read and uploaded
//! once, and normalised and encoded once per strategy.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::extractor::READ_AHEAD;
use super::feed::Feed;
use super::stages::{Stage, timed};
use super::{Extractor, Features, images, in_flight};
use crate::Result;
use crate::data::{Sample, Split, loader};
use crate::device;

/// Whether the extractors, which differ in their strategy alone, can share uploads: the device normalises for each of them, and
/// is the only one.
pub(super) fn can_share(extractors: &[Extractor]) -> bool {
    extractors.iter().all(|one| {
        one.further.is_empty() && Feed::new(one, &one.strategy.preprocess, one.turn).is_on_device()
    })
}

/// Encodes the samples at `indices` of a split with each of the extractors, which differ in their strategy alone and
/// [`can_share`], and hands each batch's features to `take` with the place of the extractor, in order. An extractor for which
/// `take` returns false is left out from then on. Returns the time spent in the encoder.
///
/// # Errors
/// If a sample cannot be read, the device fails, or `take` fails. What one strategy fails with goes to `take`.
pub(super) fn extract_each(
    extractors: &[Extractor],
    split: Split,
    indices: &[usize],
    take: &mut dyn FnMut(usize, Result<Features>) -> Result<bool>,
) -> Result<Duration> {
    let Some(first) = extractors.first() else { return Ok(Duration::ZERO) };
    let feeds: Vec<Feed> = extractors
        .iter()
        .map(|one| {
            let feed = Feed::new(one, &one.strategy.preprocess, one.turn);
            // Tests share uploads on the CPU too.
            if feed.is_on_device() { feed } else { feed.on_device() }
        })
        .collect();
    let read = |i: usize| feeds[0].read(split, indices[i]);
    let size = &first.batch_size;
    let ahead = 2 * if size.is_settled() { size.images() } else { size.images().max(READ_AHEAD) };
    let most = in_flight(first.encoder, first.device);
    let mut busy = Duration::ZERO;
    let mut goes_on = vec![true; extractors.len()];
    loader::ordered(indices.len(), first.readers, ahead, read, |mut samples| {
        let mut flying = VecDeque::new();
        let mut last_end = Instant::now();
        loop {
            let batch: Vec<Sample> =
                timed(Stage::WaitForSamples, || samples.by_ref().take(size.images()).collect::<Result<_>>())?;
            let is_last = batch.is_empty();
            let stored = match is_last {
                true => None,
                false => uploaded(&feeds[0], &batch)?,
            };
            for (place, (extractor, feed)) in extractors.iter().zip(&feeds).enumerate() {
                if !is_last && goes_on[place] {
                    let mut launched = VecDeque::new();
                    extractor.launch_fitting(feed, &batch, stored.as_ref(), &mut launched)?;
                    flying.extend(launched.into_iter().map(|part| (place, part)));
                }
                while (flying.len() >= most || is_last)
                    && let Some((place, oldest)) = flying.pop_front()
                {
                    let done = extractors[place].finish(split, oldest);
                    if let Ok((features, time)) = &done {
                        busy += *time;
                        size.note(features.samples.len(), last_end.elapsed());
                    }
                    last_end = Instant::now();
                    if goes_on[place] {
                        goes_on[place] = take(place, done.map(|(features, _)| features))?;
                    }
                }
            }
            if is_last {
                return Ok(());
            }
        }
    })?;
    Ok(busy)
}

/// Uploads a batch; nothing if it does not fit into the device's memory at once, so that it is encoded in parts.
fn uploaded(feed: &Feed, batch: &[Sample]) -> Result<Option<images::StoredBatch>> {
    match device::quietly(|| feed.upload(images::of_samples(batch))) {
        Ok(stored) => stored.map(Some),
        Err(_) => Ok(None),
    }
}
