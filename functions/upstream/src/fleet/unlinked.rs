//! What a function has that does not link the fleet's memory: nothing. Such a fleet cannot exist, so none of this runs.

#![allow(clippy::unused_async, dead_code, reason = "it has the signatures of the linked part")]

use std::{sync::Arc, time::SystemTime};

use tokio::time::Instant;
use url::Url;

use super::{Answer, Report};
use crate::{entry::Entry, request::Prepared, settings::Settings};

pub(crate) enum Fleet {}

#[derive(Clone)]
pub(crate) enum Lease {}

impl Fleet {
    pub(crate) fn new(_: &Settings) -> Option<Self> {
        None
    }

    pub(crate) fn is_due(&self, _: &Entry, _: SystemTime) -> bool {
        match *self {}
    }

    pub(crate) async fn ask(&self, _: &Prepared, _: Option<Arc<Entry>>, _: bool, _: Instant) -> Answer {
        match *self {}
    }

    pub(crate) async fn late_response(&self, _: &Prepared) -> Option<Arc<Entry>> {
        match *self {}
    }

    pub(crate) fn invalidate(&self, _: &[(Url, SystemTime)]) {
        match *self {}
    }

    pub(crate) async fn report(&self, _: Report) {
        match *self {}
    }
}
