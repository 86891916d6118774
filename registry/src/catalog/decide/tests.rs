//! One fact a test.

mod operate;
mod register;
mod remove;
