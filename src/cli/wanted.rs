//! The selection of records given on the command line.

use super::args::WantedArgs;
use crate::Result;
use crate::gate::choice::Wanted;
use crate::record::Aspect;

/// Parses and checks the selection.
pub(crate) fn wanted(args: &WantedArgs) -> Result<Wanted> {
    let WantedArgs { models, weights, normalization, sensor, bands, settings } = args;
    let named = [(Aspect::Normalization, normalization), (Aspect::Sensor, sensor), (Aspect::Bands, bands)];
    let named = named
        .into_iter()
        .flat_map(|(aspect, values)| values.iter().map(move |value| Ok((aspect.clone(), value.clone()))));
    let settings = named.chain(settings.iter().map(|text| Wanted::setting(text))).collect::<Result<_>>()?;
    Ok(Wanted { models: models.clone(), weights: weights.clone(), settings })
}
