//! The embedded store passes the suite.

mod common;

use campanile_backends::conformance_tests;
use common::EmbeddedPlace;

conformance_tests!(EmbeddedPlace::default());
