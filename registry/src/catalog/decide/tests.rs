//! One fact a test.

mod operate;
mod own;
mod register;
mod remove;
