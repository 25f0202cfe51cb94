//! The contract as tests, run against every driver.
