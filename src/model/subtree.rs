//! Selects the tensors of a weight file that belong to the model.
//!
//! Training code wraps models: names gain prefixes (`module.`, `model.backbone.`) and inserted parts (`_orig_mod.`), and a
//! checkpoint may contain the model several times, for example a student and its teacher, or the weights and their moving
//! average. The names that a model expects are therefore looked up below every prefix.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::formats::checkpoint::Stored;

/// Prefixes that wrappers put before a parameter's name: keys of a checkpoint (`model`, `state_dict`, and `teacher` of
/// self-distillation) and modules around the model (`module` of data-parallel training, `backbone`).
pub const PREFIXES: [&str; 5] = ["model", "state_dict", "teacher", "module", "backbone"];

/// Name parts that wrappers insert anywhere: `torch.compile`, fully sharded training, activation checkpoints, Lightning.
pub const WRAPPERS: [&str; 5] =
    ["_orig_mod", "_fsdp_wrapped_module", "_fpw_module", "_checkpoint_wrapped_module", "_forward_module"];

/// The tensors of a file that belong to the model.
#[derive(Default)]
pub struct Subtree<'s> {
    /// These tensors, by the model's parameter names.
    pub found: BTreeMap<String, &'s Stored>,
    /// All other tensors, with their names below the same prefix, or else in the file.
    pub rest: Vec<(String, &'s Stored)>,
    /// Which tensors were selected, if the choice was not obvious.
    pub taken: Option<String>,
}

/// Finds the tensors of a model that expects parameters of these names and shapes. Selects the prefix below which all of
/// them fit. If there are several, prefers in this order: a moving average, a teacher, a known prefix, any other, a
/// student. If there are none, selects the prefix below which most fit.
///
/// # Errors
/// If several prefixes are equally good, or two tensors have the same name.
pub fn find<'s>(stored: &'s [Stored], expected: &[(String, Vec<usize>)]) -> Result<Subtree<'s>, String> {
    let shapes: BTreeMap<&str, &[usize]> =
        expected.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())).collect();
    let names: Vec<String> = stored.iter().map(|tensor| without_wrappers(&tensor.name)).collect();
    let mut prefixes: BTreeMap<&str, Prefix> = BTreeMap::new();
    for (name, tensor) in names.iter().zip(stored) {
        for (prefix, rest) in splits(name) {
            if let Some(shape) = shapes.get(rest) {
                let below = prefixes.entry(prefix).or_default();
                match below.found.insert(rest, tensor) {
                    None => below.fitting += usize::from(fits(tensor, shape)),
                    Some(other) => below.twice = Some((other, tensor, rest)),
                }
            }
        }
    }
    let order = |(prefix, below): &(&&str, &Prefix)| (Reverse(below.fitting), rank(prefix));
    let mut candidates: Vec<_> = prefixes.iter().collect();
    candidates.sort_by_key(order);
    let Some(&(&prefix, chosen)) = candidates.first() else {
        let rest = names.into_iter().zip(stored).collect();
        return Ok(Subtree { rest, ..Subtree::default() });
    };
    if let Some((one, other, name)) = chosen.twice {
        return Err(format!(
            "both `{}` and `{}` map to `{name}`; keep only one of them",
            one.name, other.name
        ));
    }
    let whole = |(_, below): &&(&&str, &Prefix)| below.fitting == expected.len();
    let whole: Vec<&str> = candidates.iter().filter(whole).map(|(prefix, _)| **prefix).collect();
    if let [first, second, ..] = whole.as_slice()
        && rank(first) == rank(second)
    {
        let shown: Vec<String> = whole.iter().take(8).map(|prefix| shown(prefix)).collect();
        return Err(format!(
            "contains several matching models: {}; save the one to evaluate in a separate file",
            shown.join(", ")
        ));
    }
    let others: Vec<String> = whole.iter().skip(1).map(|other| shown(other)).collect();
    let taken = match others.as_slice() {
        [] if rank(prefix) == Rank::Known => None,
        [] => Some(format!("weights used: {}", shown(prefix))),
        others => Some(format!("weights used: {}; also present: {}", shown(prefix), others.join(", "))),
    };
    let known: BTreeSet<*const Stored> =
        chosen.found.values().map(|tensor| std::ptr::from_ref(*tensor)).collect();
    let rest = names.iter().zip(stored).filter(|(_, tensor)| !known.contains(&std::ptr::from_ref(*tensor)));
    let below = |name: &str| match prefix {
        "" => Some(name.to_owned()),
        prefix => name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.')).map(str::to_owned),
    };
    Ok(Subtree {
        rest: rest.map(|(name, tensor)| (below(name).unwrap_or_else(|| name.clone()), tensor)).collect(),
        found: chosen.found.iter().map(|(name, tensor)| ((*name).to_owned(), *tensor)).collect(),
        taken,
    })
}

/// Whether a stored tensor can be a parameter of this shape.
pub fn fits(stored: &Stored, shape: &[usize]) -> bool {
    stored.shape == shape && stored.is_real()
}

/// The tensors below a prefix.
#[derive(Default)]
struct Prefix<'s, 'n> {
    found: BTreeMap<&'n str, &'s Stored>,
    /// Number of tensors that have the expected shape.
    fitting: usize,
    /// Two tensors that map to the same name.
    twice: Option<(&'s Stored, &'s Stored, &'n str)>,
}

/// Preference among several matching prefixes, best first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Average,
    Teacher,
    Known,
    Other,
    Student,
}

fn rank(prefix: &str) -> Rank {
    let parts = || prefix.split('.').filter(|part| !part.is_empty());
    let any = |word: &str| parts().any(|part| part.split('_').any(|of| of == word));
    if any("student") {
        Rank::Student
    } else if any("ema") {
        Rank::Average
    } else if any("teacher") || parts().any(|part| part == "target_encoder") {
        Rank::Teacher
    } else if parts().all(|part| PREFIXES.contains(&part)) {
        Rank::Known
    } else {
        Rank::Other
    }
}

fn shown(prefix: &str) -> String {
    if prefix.is_empty() { "those without a prefix".to_owned() } else { format!("`{prefix}`") }
}

fn without_wrappers(name: &str) -> String {
    let parts: Vec<&str> = name.split('.').filter(|part| !WRAPPERS.contains(part)).collect();
    parts.join(".")
}

/// Returns each way to split a name into a prefix and the rest.
fn splits(name: &str) -> impl Iterator<Item = (&str, &str)> {
    let dots = name.match_indices('.').map(|(at, _)| (&name[..at], &name[at + 1..]));
    std::iter::once(("", name)).chain(dots)
}
