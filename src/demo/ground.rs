//! Materials of the ground and how they look to Sentinel-1 and Sentinel-2.

use crate::task::bands::Band;

use super::random::mix;

/// A surface material.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Material {
    Water,
    Broadleaf,
    Conifer,
    Crop,
    Canola,
    Grass,
    Shrub,
    Reed,
    Soil,
    RedSoil,
    Sand,
    Rock,
    Burnt,
    Asphalt,
    Concrete,
    TileRoof,
    DarkRoof,
    MetalRoof,
    Panel,
}

/// What lies at a point.
#[derive(Debug, Clone, Copy)]
pub struct Cell {
    pub material: Material,
    /// From 0 (dry, sparse, bright) to 1 (green, wet, dark).
    pub state: f32,
    /// Factor on the reflectance: crowns, furrows, shade.
    pub light: f32,
}

impl Cell {
    pub fn new(material: Material, state: f32) -> Self {
        Cell { material, state, light: 1.0 }
    }

    #[must_use]
    pub fn lit(mut self, light: f32) -> Self {
        self.light *= light;
        self
    }
}

/// Surface reflectance times 10,000, in the order B01 … B08 B8A B09 B10 B11 B12. B10 does not see the ground.
type Spectrum = [f32; 13];

/// Spectra at both ends of a material's state, and its mean backscatter, VV and VH as linear sigma0.
struct Look {
    dry: Spectrum,
    lush: Spectrum,
    backscatter: (f32, f32),
}

/// Reflectance times 10,000 in a Sentinel-2 band; 0 for a Sentinel-1 band.
pub fn reflectance(material: Material, state: f32, band: Band) -> f32 {
    let look = look(material);
    let at = |spectrum: &Spectrum| spectrum.get(band.place()).copied().unwrap_or(0.0);
    mix(at(&look.dry), at(&look.lush), state)
}

/// Mean backscatter, VV and VH, as linear sigma0.
pub fn backscatter(material: Material) -> (f32, f32) {
    look(material).backscatter
}

/// Typical rounded values, such as spectral libraries and Sentinel-2 images show.
#[rustfmt::skip]
fn look(material: Material) -> &'static Look {
    match material {
        Material::Water => &Look {
            dry:  [ 330.,  300.,  260.,  160.,  120.,   90.,   80.,   70.,   60.,   40., 0.,   30.,   20.],
            lush: [ 520.,  600.,  820.,  700.,  560.,  300.,  280.,  230.,  200.,  120., 0.,   60.,   40.],
            backscatter: (0.008, 0.001) },
        Material::Broadleaf => &Look {
            dry:  [ 320.,  380.,  560.,  560.,  920., 1500., 1750., 1850., 2000., 2000., 0., 1900., 1150.],
            lush: [ 200.,  230.,  430.,  240.,  640., 2300., 3000., 3150., 3350., 3350., 0., 1550.,  680.],
            backscatter: (0.130, 0.034) },
        Material::Conifer => &Look {
            dry:  [ 190.,  210.,  320.,  270.,  520., 1150., 1400., 1500., 1600., 1600., 0., 1050.,  560.],
            lush: [ 140.,  160.,  300.,  180.,  430., 1500., 1850., 1950., 2080., 2080., 0.,  900.,  400.],
            backscatter: (0.120, 0.030) },
        Material::Crop => &Look {
            dry:  [ 520.,  680.,  980., 1220., 1560., 1950., 2150., 2350., 2480., 2520., 0., 3000., 2300.],
            lush: [ 230.,  290.,  590.,  310.,  880., 3300., 4300., 4450., 4600., 4550., 0., 1850.,  850.],
            backscatter: (0.085, 0.016) },
        Material::Canola => &Look {
            dry:  [ 480.,  620.,  980., 1050., 1450., 2050., 2350., 2500., 2620., 2620., 0., 2750., 1900.],
            lush: [ 330.,  420., 1250., 1050., 1650., 3200., 3800., 4000., 4200., 4200., 0., 2000., 1000.],
            backscatter: (0.110, 0.030) },
        Material::Grass => &Look {
            dry:  [ 450.,  560.,  820.,  930., 1350., 1900., 2100., 2250., 2400., 2450., 0., 2750., 1950.],
            lush: [ 270.,  330.,  680.,  430., 1050., 2750., 3400., 3550., 3700., 3700., 0., 2050., 1100.],
            backscatter: (0.060, 0.010) },
        Material::Shrub => &Look {
            dry:  [ 420.,  520.,  750.,  900., 1200., 1600., 1780., 1900., 2030., 2080., 0., 2500., 1800.],
            lush: [ 270.,  320.,  560.,  460.,  920., 2050., 2450., 2580., 2720., 2720., 0., 1900., 1050.],
            backscatter: (0.085, 0.020) },
        Material::Reed => &Look {
            dry:  [ 350.,  420.,  620.,  640.,  880., 1250., 1400., 1480., 1560., 1540., 0., 1400.,  850.],
            lush: [ 240.,  290.,  500.,  350.,  720., 1750., 2100., 2200., 2300., 2250., 0., 1150.,  560.],
            backscatter: (0.100, 0.018) },
        Material::Soil => &Look {
            dry:  [ 780., 1000., 1380., 1850., 2100., 2300., 2480., 2600., 2780., 2850., 0., 3500., 3050.],
            lush: [ 480.,  600.,  830., 1080., 1250., 1400., 1520., 1600., 1720., 1750., 0., 2150., 1750.],
            backscatter: (0.070, 0.009) },
        Material::RedSoil => &Look {
            dry:  [ 620.,  760., 1150., 2050., 2350., 2550., 2700., 2800., 2950., 3000., 0., 3800., 3300.],
            lush: [ 420.,  500.,  740., 1300., 1500., 1680., 1800., 1880., 2000., 2050., 0., 2500., 2050.],
            backscatter: (0.085, 0.012) },
        Material::Sand => &Look {
            dry:  [1500., 1900., 2500., 3000., 3250., 3400., 3500., 3600., 3720., 3720., 0., 4400., 4000.],
            lush: [ 950., 1200., 1600., 1950., 2150., 2280., 2380., 2450., 2550., 2550., 0., 3000., 2600.],
            backscatter: (0.030, 0.004) },
        Material::Rock => &Look {
            dry:  [1050., 1200., 1420., 1600., 1720., 1800., 1870., 1930., 2000., 2020., 0., 2350., 2150.],
            lush: [ 650.,  730.,  870.,  980., 1080., 1160., 1230., 1290., 1360., 1380., 0., 1600., 1400.],
            backscatter: (0.120, 0.020) },
        Material::Burnt => &Look {
            dry:  [ 420.,  470.,  560.,  660.,  780.,  920., 1020., 1100., 1220., 1300., 0., 2100., 2000.],
            lush: [ 330.,  370.,  450.,  480.,  640.,  950., 1120., 1220., 1330., 1380., 0., 1700., 1400.],
            backscatter: (0.080, 0.012) },
        Material::Asphalt => &Look {
            dry:  [ 950., 1050., 1180., 1280., 1370., 1430., 1480., 1530., 1580., 1600., 0., 1750., 1600.],
            lush: [ 620.,  680.,  760.,  820.,  880.,  920.,  960., 1000., 1030., 1050., 0., 1150., 1020.],
            backscatter: (0.040, 0.005) },
        Material::Concrete => &Look {
            dry:  [1650., 1900., 2150., 2350., 2480., 2560., 2620., 2700., 2760., 2760., 0., 3000., 2750.],
            lush: [1050., 1180., 1320., 1440., 1530., 1600., 1650., 1700., 1750., 1760., 0., 1950., 1750.],
            backscatter: (0.150, 0.020) },
        Material::TileRoof => &Look {
            dry:  [ 780.,  900., 1180., 1950., 2200., 2320., 2400., 2480., 2580., 2600., 0., 3050., 2750.],
            lush: [ 560.,  640.,  840., 1350., 1550., 1660., 1740., 1800., 1880., 1900., 0., 2250., 1950.],
            backscatter: (0.550, 0.090) },
        Material::DarkRoof => &Look {
            dry:  [ 980., 1080., 1200., 1300., 1380., 1440., 1500., 1560., 1620., 1650., 0., 1900., 1780.],
            lush: [ 560.,  610.,  680.,  740.,  800.,  850.,  890.,  930.,  970.,  990., 0., 1150., 1050.],
            backscatter: (0.800, 0.120) },
        Material::MetalRoof => &Look {
            dry:  [3000., 3400., 3600., 3750., 3850., 3900., 3950., 4050., 4100., 4100., 0., 4000., 3650.],
            lush: [1700., 1950., 2080., 2180., 2250., 2300., 2340., 2400., 2450., 2450., 0., 2450., 2200.],
            backscatter: (0.900, 0.130) },
        Material::Panel => &Look {
            dry:  [ 900.,  900.,  760.,  620.,  600.,  600.,  620.,  650.,  680.,  700., 0.,  900.,  850.],
            lush: [ 620.,  600.,  470.,  360.,  350.,  350.,  360.,  380.,  400.,  410., 0.,  560.,  520.],
            backscatter: (0.700, 0.100) },
    }
}
