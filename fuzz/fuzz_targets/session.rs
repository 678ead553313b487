#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| campanile_sim::operations::run(input));
