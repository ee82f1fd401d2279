//! TerraFM.
