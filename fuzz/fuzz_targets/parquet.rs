#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some((_, read)) = terrabench::fuzzing::TARGETS.iter().find(|(name, _)| *name == "parquet") {
        read(bytes);
    }
});
