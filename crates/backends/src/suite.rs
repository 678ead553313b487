//! What every backend must do, as tests.
