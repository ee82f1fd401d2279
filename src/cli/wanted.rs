//! Which records are meant, as typed.

use super::args::WantedArgs;
use crate::Result;
use crate::record::Aspect;
use crate::report::choice::Wanted;

/// What was typed, checked.
pub(super) fn wanted(args: &WantedArgs) -> Result<Wanted> {
    let WantedArgs { models, weights, normalization, stem, bands, settings } = args;
    let named = [(Aspect::Normalization, normalization), (Aspect::Stem, stem), (Aspect::Bands, bands)];
    let named = named
        .into_iter()
        .flat_map(|(aspect, values)| values.iter().map(move |value| Ok((aspect.clone(), value.clone()))));
    let settings = named.chain(settings.iter().map(|text| Wanted::setting(text))).collect::<Result<_>>()?;
    Ok(Wanted { models: models.clone(), weights: weights.clone(), settings })
}
