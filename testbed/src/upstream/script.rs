//! Chooses the behaviour for the next call.

use std::collections::VecDeque;

use super::{Answer, Behaviour};

/// The next behaviours, and after them one of two at random.
#[derive(Debug)]
pub(super) struct Script {
    queue: VecDeque<Behaviour>,
    good: Behaviour,
    fault: Behaviour,
    probability: f64,
    random: u64,
    /// Whether the next random choice is the fault.
    fails: bool,
}

impl Default for Script {
    fn default() -> Self {
        let good = Behaviour::from(Answer::ok("good"));
        Self { queue: VecDeque::new(), fault: good.clone(), good, probability: 0.0, random: 0, fails: false }
    }
}

impl Script {
    pub(super) fn then(&mut self, behaviour: Behaviour) {
        self.queue.push_back(behaviour);
    }

    pub(super) fn otherwise(&mut self, random: u64, probability: f64, fault: Behaviour, good: Behaviour) {
        *self = Self { queue: std::mem::take(&mut self.queue), good, fault, probability, random, fails: false };
        self.toss();
    }

    /// Takes the behaviour for the next call.
    pub(super) fn next(&mut self) -> Behaviour {
        self.queue.pop_front().unwrap_or_else(|| {
            let next = self.peek().clone();
            self.toss();
            next
        })
    }

    /// Whether a connection that was just accepted is to be reset, which uses up the behaviour of the next call.
    pub(super) fn resets_connection(&mut self) -> bool {
        matches!(self.peek(), Behaviour::ResetAtConnect) && matches!(self.next(), Behaviour::ResetAtConnect)
    }

    fn peek(&self) -> &Behaviour {
        self.queue.front().unwrap_or(if self.fails { &self.fault } else { &self.good })
    }

    /// Makes the next random choice, with `SplitMix64`.
    fn toss(&mut self) {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.random;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        self.fails = f64::from((bits >> 32) as u32) < self.probability * 2_f64.powi(32);
    }
}
