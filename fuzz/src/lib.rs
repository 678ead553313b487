//! What must hold for any input, one module per fuzz target, so that plain tests can run the same over the corpus.
//!
//! `cargo +nightly fuzz run decode` fuzzes; `crates/mqtt/tests/corpus.rs` replays. The target `session` is `operations` of `campanile-sim`, replayed by
//! `crates/sim/tests/operations.rs`.

pub mod decode;
