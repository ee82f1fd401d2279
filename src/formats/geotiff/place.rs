//! Where a pixel lies on the ground [OGC 19-008r4, GeoTIFF 1.1]. Supported are geographic coordinates, UTM and web
//! Mercator, all on WGS 84, and Europe's equal-area projection (EPSG:3035).

use super::directory::{Directory, tag};

/// Equatorial radius of WGS 84 in metres.
const RADIUS: f64 = 6_378_137.0;
/// Flattening of WGS 84.
const FLATTENING: f64 = 1.0 / 298.257_223_563;

/// Keys of the GeoKey directory.
mod key {
    pub const RASTER_TYPE: u64 = 1025;
    pub const GEOGRAPHIC: u64 = 2048;
    pub const PROJECTED: u64 = 3072;
}

/// The most keys that a directory may have.
const MAX_KEYS: usize = 1 << 10;

/// How pixels map to longitude and latitude.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Georeference {
    system: System,
    /// x = a + b column + c row, y = d + e column + f row, for the corner of a pixel: [a, b, c, d, e, f].
    transform: [f64; 6],
}

/// A supported coordinate system.
#[derive(Debug, Clone, Copy, PartialEq)]
enum System {
    /// Longitude and latitude in degrees.
    Geographic,
    /// Universal transverse Mercator in metres.
    Utm { zone: u32, is_south: bool },
    /// Spherical Mercator in metres.
    WebMercator,
    /// Lambert's azimuthal equal-area projection of Europe (ETRS89-LAEA) in metres.
    EuropeEqualArea,
}

impl System {
    /// Returns the system with this EPSG code.
    fn of_epsg(code: u64) -> Option<Self> {
        let utm = |first: u64, is_south| {
            u32::try_from(code.checked_sub(first)?)
                .ok()
                .filter(|zone| (1..=60).contains(zone))
                .map(|zone| System::Utm { zone, is_south })
        };
        match code {
            4326 => Some(System::Geographic),
            3857 => Some(System::WebMercator),
            3035 => Some(System::EuropeEqualArea),
            _ => utm(32600, false).or_else(|| utm(32700, true)),
        }
    }

    /// Converts coordinates to longitude and latitude in degrees.
    fn degrees(self, x: f64, y: f64) -> [f64; 2] {
        match self {
            System::Geographic => [x, y],
            System::EuropeEqualArea => equal_area(x - 4_321_000.0, y - 3_210_000.0),
            System::WebMercator => [(x / RADIUS).to_degrees(), (y / RADIUS).sinh().atan().to_degrees()],
            System::Utm { zone, is_south } => {
                let north = if is_south { y - 10_000_000.0 } else { y };
                let [longitude, latitude] = transverse_mercator(x - 500_000.0, north);
                [longitude + f64::from(6 * zone) - 183.0, latitude]
            }
        }
    }
}

/// Inverts Lambert's azimuthal equal-area projection about 52 degrees north, 10 degrees east on GRS 80: metres east and north
/// of that point to longitude and latitude in degrees [Snyder, Map Projections: A Working Manual, 1987, equations 3-12, 3-18,
/// 24-20 to 24-28]. The series of the latitude is off by 0.3 mm, as in PROJ.
fn equal_area(east: f64, north: f64) -> [f64; 2] {
    /// Flattening of GRS 80.
    const FLATTENING: f64 = 1.0 / 298.257_222_101;
    const CENTRE: [f64; 2] = [10.0, 52.0];
    let e2 = FLATTENING * (2.0 - FLATTENING);
    let e = e2.sqrt();
    // q of equation 3-12, by the sine of the latitude.
    let q = |sine: f64| (1.0 - e2) * (sine / (1.0 - e2 * sine * sine) + (e * sine).atanh() / e);
    let q_pole = q(1.0);
    let sine = CENTRE[1].to_radians().sin();
    let (beta_sine, radius) = (q(sine) / q_pole, RADIUS * (q_pole / 2.0).sqrt());
    let beta_cosine = (1.0 - beta_sine * beta_sine).sqrt();
    let d = RADIUS * CENTRE[1].to_radians().cos() / (1.0 - e2 * sine * sine).sqrt() / (radius * beta_cosine);
    let (x, y) = (east / d, d * north);
    let rho = x.hypot(y);
    if rho == 0.0 {
        return CENTRE;
    }
    let (c_sine, c_cosine) = (2.0 * (rho / (2.0 * radius)).asin()).sin_cos();
    let longitude = (x * c_sine).atan2(rho * beta_cosine * c_cosine - y * beta_sine * c_sine);
    // The latitude on a sphere of equal area.
    let beta = (c_cosine * beta_sine + y * c_sine * beta_cosine / rho).clamp(-1.0, 1.0).asin();
    let latitude = beta
        + (e2 / 3.0 + 31.0 / 180.0 * e2.powi(2) + 517.0 / 5_040.0 * e2.powi(3)) * (2.0 * beta).sin()
        + (23.0 / 360.0 * e2.powi(2) + 251.0 / 3_780.0 * e2.powi(3)) * (4.0 * beta).sin()
        + 761.0 / 45_360.0 * e2.powi(3) * (6.0 * beta).sin();
    [CENTRE[0] + longitude.to_degrees(), latitude.to_degrees()]
}

/// Inverts the transverse Mercator projection with UTM's scale: metres east and north of the origin to degrees east of the
/// central meridian and latitude. Krüger's series to the sixth order, accurate to nanometres within the zone [Karney,
/// Transverse Mercator with an accuracy of a few nanometers, 2011, equations 7 to 11, 19 to 21, 36].
fn transverse_mercator(east: f64, north: f64) -> [f64; 2] {
    const SCALE: f64 = 0.9996;
    let n = FLATTENING / (2.0 - FLATTENING);
    let [n2, n3, n4, n5, n6] = [2, 3, 4, 5, 6].map(|power| n.powi(power));
    let radius = RADIUS / (1.0 + n) * (1.0 + n2 / 4.0 + n4 / 64.0 + n6 / 256.0);
    let beta = [
        n / 2.0 - 2.0 / 3.0 * n2 + 37.0 / 96.0 * n3 - n4 / 360.0 - 81.0 / 512.0 * n5
            + 96_199.0 / 604_800.0 * n6,
        n2 / 48.0 + n3 / 15.0 - 437.0 / 1_440.0 * n4 + 46.0 / 105.0 * n5 - 1_118_711.0 / 3_870_720.0 * n6,
        17.0 / 480.0 * n3 - 37.0 / 840.0 * n4 - 209.0 / 4_480.0 * n5 + 5_569.0 / 90_720.0 * n6,
        4_397.0 / 161_280.0 * n4 - 11.0 / 504.0 * n5 - 830_251.0 / 7_257_600.0 * n6,
        4_583.0 / 161_280.0 * n5 - 108_847.0 / 3_991_680.0 * n6,
        20_648_693.0 / 638_668_800.0 * n6,
    ];
    let (xi, eta) = (north / (SCALE * radius), east / (SCALE * radius));
    let (mut xi_sphere, mut eta_sphere) = (xi, eta);
    for (order, beta) in (1..).zip(beta) {
        let twice = 2.0 * f64::from(order);
        xi_sphere -= beta * (twice * xi).sin() * (twice * eta).cosh();
        eta_sphere -= beta * (twice * xi).cos() * (twice * eta).sinh();
    }
    let longitude = eta_sphere.sinh().atan2(xi_sphere.cos());
    let conformal = xi_sphere.sin() / eta_sphere.sinh().hypot(xi_sphere.cos());
    // Tangent of the latitude from that of the conformal latitude, by Newton's method.
    let e2 = FLATTENING * (2.0 - FLATTENING);
    let e = e2.sqrt();
    let mut tangent = conformal;
    for _ in 0..5 {
        let secant = 1f64.hypot(tangent);
        let sigma = (e * (e * tangent / secant).atanh()).sinh();
        let found = tangent * 1f64.hypot(sigma) - sigma * secant;
        tangent += (conformal - found) / 1f64.hypot(found) * (1.0 + (1.0 - e2) * tangent * tangent)
            / ((1.0 - e2) * secant);
    }
    [longitude.to_degrees(), tangent.atan().to_degrees()]
}

impl Georeference {
    /// Reads the georeference of the first directory; `None` if there is none, or if its coordinate system is not
    /// supported.
    pub(super) fn read(directory: &Directory, bytes: &[u8]) -> Option<Self> {
        let keys: Vec<u64> = directory.numbers(bytes, tag::GEO_KEYS)?.take(4 * MAX_KEYS).collect();
        let (entries, _) = keys.get(4..)?.as_chunks::<4>();
        // A value whose second number is 0 is stored in the entry itself.
        let of_key = |key: u64| {
            entries.iter().find(|[id, place, ..]| *id == key && *place == 0).map(|[.., value]| *value)
        };
        let projected = of_key(key::PROJECTED).filter(|code| *code != 0);
        let system = System::of_epsg(projected.or_else(|| of_key(key::GEOGRAPHIC))?)?;
        let mut transform = Self::transform(directory, bytes)?;
        if of_key(key::RASTER_TYPE) == Some(2) {
            // The file's coordinates are those of pixel centres.
            let [a, b, c, d, e, f] = transform;
            transform = [a - (b + c) / 2.0, b, c, d - (e + f) / 2.0, e, f];
        }
        transform.iter().all(|number| number.is_finite()).then_some(Georeference { system, transform })
    }

    fn transform(directory: &Directory, bytes: &[u8]) -> Option<[f64; 6]> {
        let numbers = |tag| directory.doubles(bytes, tag);
        if let Some([b, c, _, a, e, f, _, d, ..]) = numbers(tag::TRANSFORMATION).as_deref() {
            return Some([*a, *b, *c, *d, *e, *f]);
        }
        let (scale, tie) = (numbers(tag::PIXEL_SCALE)?, numbers(tag::TIE_POINT)?);
        match (scale.as_slice(), tie.as_slice()) {
            ([width, height, ..], [column, row, _, x, y, ..]) => {
                Some([x - column * width, *width, 0.0, y + row * height, 0.0, -height])
            }
            _ => None,
        }
    }

    /// Returns longitude and latitude in degrees of the centre of a pixel, counted from 0 at the top left.
    pub fn degrees(&self, row: usize, column: usize) -> [f64; 2] {
        let [a, b, c, d, e, f] = self.transform;
        let (row, column) = (row as f64 + 0.5, column as f64 + 0.5);
        self.system.degrees(a + b * column + c * row, d + e * column + f * row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// EPSG code, easting, northing, and what PROJ 9.5.1 makes of them (pyproj, `Transformer.from_crs(code, 4326)`).
    #[test]
    fn projections_are_those_of_proj() {
        for (code, x, y, longitude, latitude) in [
            (4326, 11.58, 48.15, 11.58, 48.15),
            (32632, 500_000.0, 5_300_000.0, 9.0, 47.853_341_945_609),
            (32632, 301_234.5, 5_300_123.25, 6.344_363_574_084, 47.823_725_921_171),
            (32633, 765_432.1, 8_123_456.7, 23.176_848_997_943, 73.043_243_729_561),
            (32660, 166_021.5, 12_345.0, 173.999_994_859_403, 0.111_534_987_704),
            (32701, 833_978.0, 9_999_999.0, -174.000_004_997_989, -0.000_009_034_831),
            (32721, 432_100.0, 6_123_456.0, -57.744_354_204_517, -35.029_286_427_339),
            (3857, -1_234_567.0, 7_654_321.0, -11.090_304_053_696, 56.478_766_832_891),
            (3857, 2_345_678.0, -3_456_789.0, 21.071_583_990_229, -29.635_552_417_255),
            (3035, 4_321_000.0, 3_210_000.0, 10.0, 52.0),
            (3035, 3_450_000.0, 3_550_000.0, -3.473_327_466_341, 54.322_878_184_509),
            (3035, 5_000_000.0, 1_600_000.0, 17.597_393_310_156, 37.169_824_351_597),
            (3035, 2_800_000.0, 1_900_000.0, -7.519_210_212_375, 38.603_147_370_901),
            (3035, 6_500_000.5, 5_300_000.25, 58.175_210_213_315, 63.633_515_555_702),
        ] {
            let [lon, lat] = System::of_epsg(code).unwrap().degrees(x, y);
            let off = [lon - longitude, lat - latitude].map(f64::abs);
            assert!(off.iter().all(|off| *off < 2e-11), "{code}: {lon} {lat}, off by {off:?}");
        }
    }

    /// The forward projection by numerical integration of the meridian, where x = 500 km.
    #[test]
    fn a_meridian_has_the_length_of_the_ellipsoid() {
        let e2 = FLATTENING * (2.0 - FLATTENING);
        for latitude in [1.0, 30.0, 47.25, 71.5, 84.0f64] {
            let steps = 20_000;
            let step = latitude.to_radians() / f64::from(steps);
            let curvature = |at: f64| RADIUS * (1.0 - e2) / (1.0 - e2 * at.sin().powi(2)).powf(1.5);
            let arc: f64 = (0..steps).map(|i| curvature((f64::from(i) + 0.5) * step) * step).sum();
            let [lon, lat] = System::Utm { zone: 32, is_south: false }.degrees(500_000.0, 0.9996 * arc);
            assert!((lon - 9.0).abs() < 1e-12 && (lat - latitude).abs() < 1e-8, "{latitude}: {lon} {lat}");
            let south = System::Utm { zone: 32, is_south: true };
            let [_, mirrored] = south.degrees(500_000.0, 10_000_000.0 - 0.9996 * arc);
            assert!((mirrored + latitude).abs() < 1e-8, "{latitude}: {mirrored}");
        }
    }

    #[test]
    fn only_known_systems_are_supported() {
        for code in [0, 32600, 32661, 32700, 32761, 3034, 32767] {
            assert_eq!(System::of_epsg(code), None, "{code}");
        }
        assert_eq!(System::of_epsg(32760), Some(System::Utm { zone: 60, is_south: true }));
        let [lon, lat] = System::WebMercator.degrees(RADIUS * 0.5, 0.0);
        assert!((lon - 0.5f64.to_degrees()).abs() < 1e-12 && lat == 0.0);
    }
}
