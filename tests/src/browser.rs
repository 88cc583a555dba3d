//! A real browser without a window, driven through chromedriver.

/// A browser; ended when dropped.
#[derive(Debug)]
pub struct Browser;
