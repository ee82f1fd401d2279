//! All integration tests, in one binary: each further binary would link every dependency once more. A new file of tests is
//! a line here; `cargo xtask test --only NAME` runs those whose path holds `NAME` (`reader`, `report::csv`).

mod common;
#[path = "support/generated.rs"]
mod generated;
#[path = "common/golden.rs"]
mod golden;
#[path = "support/hub.rs"]
mod hub_server;
mod made;
#[path = "support/parquet.rs"]
mod parquet_file;
#[path = "support/source.rs"]
mod source;
#[path = "support/tortilla.rs"]
mod tortilla;

#[path = "support/reference_model.rs"]
mod reference_model;
mod sample;
#[path = "common/zoo.rs"]
mod zoo;
#[path = "common/zoo_parity.rs"]
mod zoo_parity;
#[path = "common/zoo_real.rs"]
mod zoo_real;

mod aggregate;
mod audit;
mod augment;
mod bad_records;
mod batches;
mod cache;
mod canvas;
mod check;
mod checkpoints;
mod ci_example;
mod claims;
mod cli;
mod console;
mod contribute;
mod copernicus;
mod copernicus_bench;
mod copernicus_s3_s5p;
mod demo;
mod demo_brightness;
mod demo_numbers;
mod demo_suites;
mod divergence;
mod docs;
mod doctor;
mod end_to_end;
mod errors;
mod faults;
mod feature_source;
mod feed;
mod fetch;
mod fetch_hostile;
mod finetune;
mod flood;
mod floors;
mod frozen;
mod fuzz;
mod gate;
mod geobench2;
mod geobench_more;
mod geotiff;
mod images;
mod inputs;
mod install;
mod keys;
mod landslide4sense;
mod loader;
mod lower_is_better;
mod metadata;
mod metrics;
mod model;
mod on_device;
mod onnx;
mod optimizers;
mod origins;
mod packed;
mod paper;
mod parity;
mod perf_page;
mod pickle;
mod probe;
mod process;
mod process_bench;
mod program;
mod protocols;
mod ranking;
mod reader;
mod record;
mod regression;
mod regression_golden;
mod report;
mod report_page;
mod reproduce;
mod rows;
mod segmentation;
mod segmentation_probe;
mod sheet;
mod slurm;
mod spread;
#[cfg(unix)]
mod stopping;
mod supply_chain;
mod sweep;
mod torchgeo;
mod upernet;
mod upernet_protocol;
mod vectors;
mod versions;
mod whole_report;
mod workers;
mod zoo_anysat;
mod zoo_copernicus_bench;
mod zoo_copernicus_fm;
mod zoo_croma;
mod zoo_decur;
mod zoo_dofa;
mod zoo_galileo;
mod zoo_listing;
mod zoo_mmearth;
mod zoo_presto;
mod zoo_prithvi2;
mod zoo_protocols;
mod zoo_satlas;
mod zoo_satmae;
mod zoo_softcon;
mod zoo_vit;
