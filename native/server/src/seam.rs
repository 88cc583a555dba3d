//! The engine as this room sees it. Under test a double with the same interface stands here, so that every handler can be
//! run against scripted events without a model, and handlers stay free of type parameters.

#[cfg(not(test))]
pub(crate) use specula_engine::{Engine, EventStream, Request};

#[cfg(test)]
pub(crate) use double::{Engine, EventStream, Request};

#[cfg(test)]
pub(crate) mod double;
