//! Inputs other than pixels: what is known of the bands, the date and the place of an image.

use serde::{Deserialize, Serialize};

use super::arrays::{HostArray, Numbers};
use crate::formats::onnx::{Dimension, OnnxValue};
use crate::model::encoder::Input;
use crate::model::months::date;
use crate::model::sensor_input::SensorInput;
use crate::task::Sensor;
use crate::{Error, Result};

/// An input that takes something else than pixels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ExtraInput {
    /// Name of the input in the file.
    pub name: String,
    /// What it takes.
    pub value: ExtraValue,
    /// The numbers of [`ExtraValue::Constant`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub numbers: Vec<f64>,
    /// Factor by which the value is multiplied.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub scale: f64,
    /// Number that is added to the product.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub offset: f64,
    /// What an image with an unknown date or place gets, in place of each number of the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<f64>,
    /// The sensor whose image the value describes, for models of several. Default: the first image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sensor: Option<Sensor>,
}

fn one() -> f64 {
    1.0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_one(number: &f64) -> bool {
    *number == 1.0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(number: &f64) -> bool {
    *number == 0.0
}

/// What an input takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExtraValue {
    /// Centre wavelength of each band in micrometres.
    WavelengthsUm,
    /// Centre wavelength of each band in nanometres.
    WavelengthsNm,
    /// Bandwidth of each band in micrometres.
    BandwidthsUm,
    /// Bandwidth of each band in nanometres.
    BandwidthsNm,
    /// Ground sampling distance of the stored pixels in metres.
    GsdM,
    /// Days since 1970-01-01.
    Days,
    /// Year, such as 2020.
    Year,
    /// Month of the year from 1 to 12.
    Month,
    /// Day of the year from 1 to 366.
    DayOfYear,
    /// Longitude and latitude of the centre in degrees.
    LongitudeLatitude,
    /// Latitude and longitude of the centre in degrees.
    LatitudeLongitude,
    /// The same numbers for every image.
    Constant,
}

impl ExtraValue {
    /// Whether it has a number per band.
    pub fn is_per_band(self) -> bool {
        use ExtraValue::{BandwidthsNm, BandwidthsUm, WavelengthsNm, WavelengthsUm};
        matches!(self, WavelengthsUm | WavelengthsNm | BandwidthsUm | BandwidthsNm)
    }

    /// Whether it is the same for all images of a batch.
    fn is_of_batch(self) -> bool {
        self.is_per_band() || matches!(self, ExtraValue::GsdM | ExtraValue::Constant)
    }
}

/// How the numbers of an input are arranged, with k numbers per image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrangement {
    /// One number, without dimensions.
    Scalar,
    /// [k]: the same numbers for all images.
    Shared,
    /// [n]: one number per image.
    PerImage,
    /// [n, k].
    Rows,
}

impl ExtraInput {
    /// Describes an inconsistency, if there is one.
    pub fn problem(&self) -> Option<String> {
        let name = &self.name;
        let is_constant = self.value == ExtraValue::Constant;
        if is_constant && self.numbers.is_empty() {
            return Some(format!("inputs: `{name}`: expected `numbers` for a constant, found none"));
        }
        if !is_constant && !self.numbers.is_empty() {
            return Some(format!("inputs: `{name}`: expected `numbers` for a constant only"));
        }
        let all = self.numbers.iter().chain([&self.scale, &self.offset]).chain(&self.unknown);
        let wrong = all.into_iter().find(|number| !number.is_finite())?;
        Some(format!("inputs: `{name}`: expected finite numbers, found {wrong}"))
    }

    /// Returns how the file's input `declared` takes the numbers. `batch` is the number of images that the file takes at once,
    /// if it fixes it.
    ///
    /// # Errors
    /// If it takes them in a form that has no place for them.
    pub fn arrangement(&self, declared: &OnnxValue, batch: Option<usize>) -> Result<Arrangement> {
        let is_shared = self.value.is_of_batch();
        let is_single = match self.value {
            ExtraValue::LongitudeLatitude | ExtraValue::LatitudeLongitude => false,
            ExtraValue::Constant => self.numbers.len() == 1,
            value => !value.is_per_band(),
        };
        let arrangement = match declared.shape.as_deref() {
            None if is_single => Some(Arrangement::PerImage),
            None => Some(Arrangement::Rows),
            Some([]) => (is_shared && is_single).then_some(Arrangement::Scalar),
            Some([Dimension::Fixed(1)]) if is_shared && is_single => Some(Arrangement::Shared),
            Some([size]) if is_single => {
                let fits = size.fixed().is_none_or(|size| Some(size) == batch);
                fits.then_some(Arrangement::PerImage)
            }
            Some([_]) => is_shared.then_some(Arrangement::Shared),
            Some([_, _]) => Some(Arrangement::Rows),
            Some(_) => None,
        };
        arrangement.ok_or_else(|| {
            let forms = match (is_shared, is_single) {
                (true, true) => "[], [1], [n] or [n, 1]",
                (true, false) => "[bands] or [n, bands]",
                (false, true) => "[n] or [n, 1]",
                (false, false) => "[n, 2]",
            };
            Error::mismatch(format!("expected an input {forms} for `{}`, found {declared}", self.name))
                .help("give the model an input of one of these shapes when you export it")
        })
    }

    /// Returns the numbers for `n` images, of which the last ones repeat that at `images.end - 1` to fill a fixed batch.
    ///
    /// # Errors
    /// If a number is unknown and the TOML gives none for that case.
    pub fn array(
        &self,
        declared: &OnnxValue,
        inputs: &[Input],
        described: &SensorInput,
        images: std::ops::Range<usize>,
        n: usize,
    ) -> Result<HostArray> {
        let arrangement = self.arrangement(declared, Some(n))?;
        let input = match self.sensor {
            None => inputs.first(),
            Some(sensor) => inputs.iter().find(|input| input.sensor == sensor),
        };
        let input = input.ok_or_else(|| {
            let sensor = self.sensor.map_or_else(String::new, |sensor| format!(" of {sensor}"));
            Error::mismatch(format!("input `{}`: found no image{sensor} in the batch", self.name))
        })?;
        let last = images.end.saturating_sub(1);
        let rows =
            (images.start..images.start + n).map(|image| self.numbers(input, described, image.min(last)));
        let (shape, values) = match arrangement {
            Arrangement::Scalar => (vec![], self.numbers(input, described, images.start)?),
            Arrangement::Shared => {
                let numbers = self.numbers(input, described, images.start)?;
                (vec![numbers.len()], numbers)
            }
            Arrangement::PerImage => (vec![n], rows.collect::<Result<Vec<_>>>()?.concat()),
            Arrangement::Rows => {
                let rows = rows.collect::<Result<Vec<_>>>()?;
                (vec![n, rows.first().map_or(0, Vec::len)], rows.concat())
            }
        };
        let fits =
            |(size, declared): (&usize, &Dimension)| declared.fixed().is_none_or(|fixed| fixed == *size);
        if !declared.shape.as_ref().is_none_or(|declared| shape.iter().zip(declared).all(fits)) {
            return Err(Error::mismatch(format!("expected the input {declared}, found {shape:?} for it"))
                .help("check `value` and `numbers` of this input, and the bands of the sensor"));
        }
        let numbers = Numbers::of(&values, declared.element).ok_or_else(|| {
            Error::mismatch(format!(
                "expected an input of floating-point numbers or of int32 or int64, found {declared}"
            ))
            .help("export the model with an input of one of these types")
        })?;
        Ok(HostArray { shape, numbers })
    }

    /// Returns the numbers of one image.
    fn numbers(&self, input: &Input, described: &SensorInput, image: usize) -> Result<Vec<f64>> {
        let scaled = |value: f64| value * self.scale + self.offset;
        let known = match self.value {
            ExtraValue::WavelengthsUm => of_bands(input, described, &described.wavelengths, 1.0),
            ExtraValue::WavelengthsNm => of_bands(input, described, &described.wavelengths, 1000.0),
            ExtraValue::BandwidthsUm => of_bands(input, described, &described.bandwidths, 1.0),
            ExtraValue::BandwidthsNm => of_bands(input, described, &described.bandwidths, 1000.0),
            ExtraValue::GsdM => input.context.gsd_m.map(f64::from).or(described.gsd_m).map(|gsd| vec![gsd]),
            ExtraValue::Constant => Some(self.numbers.clone()),
            ExtraValue::Days | ExtraValue::Year | ExtraValue::Month | ExtraValue::DayOfYear => {
                let days = input.context.days.get(image).copied().flatten();
                days.map(|days| {
                    let date = date(days);
                    vec![match self.value {
                        ExtraValue::Year => date.year as f64,
                        ExtraValue::Month => (date.month + 1) as f64,
                        ExtraValue::DayOfYear => date.day_of_year as f64,
                        _ => days,
                    }]
                })
            }
            ExtraValue::LongitudeLatitude | ExtraValue::LatitudeLongitude => {
                let place = input.context.places.get(image).copied().flatten();
                place.map(|[longitude, latitude]| match self.value {
                    ExtraValue::LongitudeLatitude => vec![longitude.into(), latitude.into()],
                    _ => vec![latitude.into(), longitude.into()],
                })
            }
        };
        if let Some(known) = known {
            return Ok(known.into_iter().map(scaled).collect());
        }
        let count = match self.value {
            ExtraValue::LongitudeLatitude | ExtraValue::LatitudeLongitude => 2,
            value if value.is_per_band() => input.pixels.dims()[1],
            _ => 1,
        };
        let Some(unknown) = self.unknown else { return Err(self.is_unknown(input)) };
        Ok(vec![unknown; count])
    }

    fn is_unknown(&self, input: &Input) -> Error {
        let Input { sensor, .. } = input;
        let (what, also) = match self.value {
            ExtraValue::WavelengthsUm | ExtraValue::WavelengthsNm => {
                ("wavelengths of all bands", format!("; or `wavelengths` in [sensors.{sensor}]"))
            }
            ExtraValue::BandwidthsUm | ExtraValue::BandwidthsNm => {
                ("bandwidths of all bands", format!("; or `bandwidths` in [sensors.{sensor}]"))
            }
            ExtraValue::GsdM => ("ground sampling distance", format!("; or `gsd-m` in [sensors.{sensor}]")),
            ExtraValue::LongitudeLatitude | ExtraValue::LatitudeLongitude => ("place", String::new()),
            _ => ("date", String::new()),
        };
        Error::mismatch(format!(
            "the model's input `{}` takes the {what}, which is not known for images of {sensor} in this task",
            self.name
        ))
        .help(format!(
            "add `unknown = NUMBER` to this input in the model's TOML, the number that stands for it{also}"
        ))
    }
}

/// Returns the number of each band of an input; `None` if one is not known. Every band of the model's sensor has one, or none.
fn of_bands(input: &Input, described: &SensorInput, numbers: &[f64], factor: f64) -> Option<Vec<f64>> {
    let of_band = |band| {
        let place = described.bands.iter().position(|known| known == band)?;
        Some(numbers.get(place)? * factor)
    };
    input.bands.iter().map(of_band).collect()
}
