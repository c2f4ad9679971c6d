//! Statistics of a series of measurements.

use std::time::Duration;

use serde::Serialize;

/// Quantiles of a series, in the unit of its values.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct Spread {
    pub(crate) minimum: f64,
    pub(crate) p25: f64,
    pub(crate) median: f64,
    pub(crate) p75: f64,
    pub(crate) p95: f64,
    pub(crate) p99: f64,
}

impl Spread {
    /// Of `values`. There must be at least one.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_unstable_by(f64::total_cmp);
        let quantile = |percent: usize| values[(values.len() - 1) * percent / 100];
        let [minimum, p25, median, p75, p95, p99] = [0, 25, 50, 75, 95, 99].map(quantile);
        Self { minimum, p25, median, p75, p95, p99 }
    }

    /// Of `times`, in microseconds.
    pub(crate) fn of_times(times: &[Duration]) -> Self {
        Self::of(times.iter().map(|time| time.as_secs_f64() * 1e6))
    }
}
