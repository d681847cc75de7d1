//! All tests that stand outside the crate, in one binary: linking is paid once.

mod architecture;
