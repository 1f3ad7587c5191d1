//! Whole-system tests of s3rep live in `tests/`.
