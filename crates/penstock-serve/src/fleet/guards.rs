//! Watching a canary beside live: pure bookkeeping of what each answered, and the verdict it leads to.
//!
//! Only requests that traffic dealt are counted, and only failures of ours: no client can roll a release back. Requests
//! are looked at in blocks of 2,000 of the canary's, the newest two, so that a canary that turns bad later is seen too.

use std::time::Duration;

use super::desired::Guards;
use super::scores::Scores;
use super::significance::{Share, exceeds};

/// Requests of the canary after which a block ends, and between two looks.
const BLOCK: u64 = 2000;
const LOOK: u64 = 50;
/// Times are compared between requests of about the same rows: classes by powers of 4.
const CLASSES: usize = 8;
/// Of a time: four a doubling, from 8 us.
const TIMES: usize = 84;
const FIRST_TIME_S: f64 = 8e-6;
/// Below this share more slow requests, nobody is woken.
const SLOW_SHARE: f64 = 0.1;
/// What a request may always take beyond live's 95th percentile.
const SLACK_S: f64 = 200e-6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Live = 0,
    Canary = 1,
}

/// What became of a request that traffic dealt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Answered,
    /// Our failure.
    Failed,
    /// Ended by its deadline, which a client may have chosen: its time counts, it is no failure.
    Stopped,
    /// The client's failure, or one of load: it says nothing about the version.
    Neither,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    pub rolls_back: bool,
    pub why: String,
}

#[derive(Clone, Debug)]
struct Tally {
    errors: Share,
    /// Requests by class of rows and by time.
    times: [[u32; TIMES]; CLASSES],
}

impl Default for Tally {
    fn default() -> Tally {
        Tally {
            errors: Share::default(),
            times: [[0; TIMES]; CLASSES],
        }
    }
}

/// The counts of one canary and of live beside it. By `Side`.
#[derive(Debug)]
pub struct Watched {
    guards: Guards,
    /// Two blocks, the newest last.
    blocks: [Box<[Tally; 2]>; 2],
    scores: Option<Box<[Scores; 2]>>,
    shift_told: bool,
    canary_seen: u64,
}

impl Watched {
    pub fn new(guards: &Guards) -> Watched {
        let scored = guards.score_shift.is_some();
        Watched {
            guards: guards.clone(),
            blocks: Default::default(),
            scores: scored.then(Default::default),
            shift_told: false,
            canary_seen: 0,
        }
    }

    /// Counts one request; now and then looks, and says what must be done. `took`: in the model, without the queue.
    pub fn count(
        &mut self,
        side: Side,
        outcome: Outcome,
        rows: usize,
        took: Duration,
        scores: impl IntoIterator<Item = f32>,
    ) -> Option<Verdict> {
        if outcome == Outcome::Neither {
            return None;
        }
        let tally = &mut self.blocks[1][side as usize];
        if outcome != Outcome::Stopped {
            tally.errors.of += 1;
            tally.errors.hits += u64::from(outcome == Outcome::Failed);
        }
        if outcome != Outcome::Failed {
            tally.times[class(rows)][time_bin(took.as_secs_f64())] += 1;
            if let Some(sides) = &mut self.scores {
                scores.into_iter().for_each(|s| sides[side as usize].add(s));
            }
        }
        if side == Side::Live {
            return None;
        }
        self.canary_seen += 1;
        let look = self.canary_seen.is_multiple_of(LOOK);
        let verdict = look.then(|| self.verdict()).flatten();
        if self.canary_seen.is_multiple_of(BLOCK) {
            self.blocks.swap(0, 1);
            *self.blocks[1] = Default::default();
        }
        verdict
    }

    /// What the counts say now.
    fn verdict(&mut self) -> Option<Verdict> {
        let guards = &self.guards;
        let rolls_back = |why| {
            Some(Verdict {
                rolls_back: true,
                why,
            })
        };
        if self.canary_seen < guards.min_requests {
            return None;
        }
        let [live, canary] = self.error_shares();
        if let Some(least) = guards.error_rate
            && canary.of >= guards.min_requests
            && exceeds(canary, live, least, guards.min_requests)
        {
            return rolls_back(format!(
                "{} of its {} requests failed ({:.1} %), {} of live's {}",
                canary.hits,
                canary.of,
                100.0 * canary.value(),
                live.hits,
                live.of
            ));
        }
        if let Some(times) = guards.latency {
            let (canary, live, beyond_s) = self.slow(times);
            if canary.of >= guards.min_requests
                && live.of >= guards.min_requests
                && exceeds(canary, live, SLOW_SHARE, guards.min_requests)
            {
                return rolls_back(format!(
                    "{:.0} % of its requests take longer than {:.3} ms ({times} times live's p95), {:.0} % of live's",
                    100.0 * canary.value(),
                    1e3 * beyond_s,
                    100.0 * live.value()
                ));
            }
        }
        self.shifted()
    }

    fn errors(&self, side: Side) -> Share {
        let each = self.blocks.iter().map(|block| block[side as usize].errors);
        each.fold(Share::default(), |a, b| Share {
            hits: a.hits + b.hits,
            of: a.of + b.of,
        })
    }

    /// Requests beyond `times` live's 95th percentile, canary's and live's, where live has enough of about as many rows;
    /// and that time in the class with most of the canary's requests.
    fn slow(&self, times: f64) -> (Share, Share, f64) {
        let (mut canary, mut live, mut beyond_s, mut most) =
            (Share::default(), Share::default(), 0.0, 0);
        for class in 0..CLASSES {
            let of = |side: Side, bin: usize| -> u64 {
                let each = self
                    .blocks
                    .iter()
                    .map(|block| block[side as usize].times[class][bin]);
                each.map(u64::from).sum()
            };
            let total = |side, from: usize| (from..TIMES).map(|bin| of(side, bin)).sum::<u64>();
            let all = total(Side::Live, 0);
            if all < 50 {
                continue;
            }
            let p95 = (0..TIMES).find(|bin| total(Side::Live, bin + 1) * 20 <= all);
            let p95_s = time_s(p95.unwrap_or(TIMES - 1) + 1);
            let limit = (p95_s * times).max(p95_s + SLACK_S);
            let slow_from = time_bin(limit) + 1;
            if slow_from >= TIMES {
                continue;
            }
            let canarys = total(Side::Canary, 0);
            if canarys > most {
                (most, beyond_s) = (canarys, limit);
            }
            canary.hits += total(Side::Canary, slow_from);
            canary.of += canarys;
            live.hits += total(Side::Live, slow_from);
            live.of += all;
        }
        (canary, live, beyond_s)
    }

    fn shifted(&mut self) -> Option<Verdict> {
        let (limit, [live, canary]) = (self.guards.score_shift?, &**self.scores.as_ref()?);
        if self.shift_told || live.total().min(canary.total()) < self.guards.min_scores {
            return None;
        }
        let index = canary.stability_index(live);
        if index <= limit {
            return None;
        }
        self.shift_told = true;
        Some(Verdict {
            rolls_back: self.guards.score_shift_acts,
            why: format!(
                "its scores differ from live's: PSI {index:.3} over {} and {} rows (limit {limit})",
                canary.total(),
                live.total()
            ),
        })
    }

    /// Share of failed requests in the newest blocks, live's and the canary's.
    pub fn error_shares(&self) -> [Share; 2] {
        [self.errors(Side::Live), self.errors(Side::Canary)]
    }
}

fn class(rows: usize) -> usize {
    (rows.max(1).ilog2() as usize / 2).min(CLASSES - 1)
}

fn time_bin(seconds: f64) -> usize {
    let bin = (seconds / FIRST_TIME_S).log2() * 4.0;
    bin.clamp(0.0, (TIMES - 1) as f64) as usize
}

/// Where a bin begins.
fn time_s(bin: usize) -> f64 {
    FIRST_TIME_S * (bin as f64 / 4.0).exp2()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers in [0, 1) that look random.
    struct Chance(u64);

    impl Chance {
        fn next(&mut self) -> f64 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 11) as f64 / (1u64 << 53) as f64
        }

        /// About log-normal: a sum of uniforms in the exponent.
        fn time(&mut self, median_us: f64) -> Duration {
            let sum: f64 = (0..6).map(|_| self.next()).sum();
            Duration::from_secs_f64(median_us * 1e-6 * ((sum - 3.0) * 0.6).exp())
        }
    }

    struct Game {
        share: f64,
        errors: [f64; 2],
        median_us: [f64; 2],
        shift: f32,
    }

    const FAIR: Game = Game {
        share: 0.1,
        errors: [0.002, 0.002],
        median_us: [400.0, 400.0],
        shift: 0.0,
    };

    /// The first verdict and the requests it took.
    fn play(game: &Game, requests: u64, guards: &Guards, seed: u64) -> Option<(u64, Verdict)> {
        let (mut chance, mut watched) = (Chance(seed), Watched::new(guards));
        for n in 1..=requests {
            let side = if chance.next() < game.share {
                Side::Canary
            } else {
                Side::Live
            };
            let failed = chance.next() < game.errors[side as usize];
            let outcome = if failed {
                Outcome::Failed
            } else {
                Outcome::Answered
            };
            let rows = if chance.next() < 0.5 { 1 } else { 100 };
            let took =
                chance.time(game.median_us[side as usize] * if rows == 1 { 1.0 } else { 9.0 });
            let score = chance.next() as f32 * 0.2 + game.shift * f32::from(side as u8);
            if let Some(verdict) = watched.count(side, outcome, rows, took, [score]) {
                return Some((n, verdict));
            }
        }
        None
    }

    #[test]
    fn two_equal_versions_trip_nothing_in_a_million_requests() {
        for (seed, share) in [(1, 0.1), (2, 0.5), (3, 0.9), (4, 0.01)] {
            let game = Game { share, ..FAIR };
            assert_eq!(
                play(&game, 1_000_000, &Guards::default(), seed),
                None,
                "share {share}"
            );
        }
        let failing = Game {
            errors: [0.05, 0.05],
            ..FAIR
        };
        assert_eq!(play(&failing, 1_000_000, &Guards::default(), 5), None);
    }

    #[test]
    fn five_percent_errors_trip_within_1000_of_the_canarys_requests() {
        for seed in 1..=20 {
            for share in [0.1, 0.5, 0.9] {
                let game = Game {
                    share,
                    errors: [0.0005, 0.05],
                    ..FAIR
                };
                let (n, verdict) =
                    play(&game, (1000.0 / share) as u64, &Guards::default(), seed).unwrap();
                assert!(
                    verdict.rolls_back && verdict.why.contains("requests failed"),
                    "{n} {verdict:?}"
                );
            }
        }
    }

    #[test]
    fn a_canary_of_twice_the_time_is_rolled_back() {
        let game = Game {
            median_us: [1000.0, 2000.0],
            ..FAIR
        };
        let (_, verdict) = play(&game, 20_000, &Guards::default(), 1).unwrap();
        assert!(
            verdict.rolls_back && verdict.why.contains("live's p95"),
            "{verdict:?}"
        );
    }

    #[test]
    fn larger_requests_alone_are_not_a_slower_canary() {
        let mut watched = Watched::new(&Guards::default());
        for n in 0..20_000 {
            let side = if n % 2 == 0 { Side::Live } else { Side::Canary };
            let large = n % 10 == 0 || (side == Side::Canary && n % 3 != 0);
            let (rows, took) = if large { (1000, 20) } else { (1, 1) };
            let verdict = watched.count(
                side,
                Outcome::Answered,
                rows,
                Duration::from_millis(took),
                [0.1],
            );
            assert_eq!(verdict, None);
        }
    }

    #[test]
    fn what_clients_did_wrong_never_counts() {
        let mut watched = Watched::new(&Guards::default());
        for _ in 0..5000 {
            assert_eq!(
                watched.count(Side::Canary, Outcome::Neither, 1, Duration::ZERO, []),
                None
            );
        }
        assert_eq!(watched.error_shares()[1].of, 0);
    }

    #[test]
    fn a_canary_that_hangs_is_slow_although_no_request_fails() {
        let mut watched = Watched::new(&Guards::default());
        let verdict = (0..2000).find_map(|n| {
            let (side, outcome, ms) = match n % 2 {
                0 => (Side::Live, Outcome::Answered, 1),
                _ => (Side::Canary, Outcome::Stopped, 50),
            };
            watched.count(side, outcome, 1, Duration::from_millis(ms), [])
        });
        assert!(verdict.is_some_and(|v| v.rolls_back && v.why.contains("p95")));
    }

    #[test]
    fn a_canary_that_turns_bad_later_is_seen() {
        let (mut watched, mut chance) = (Watched::new(&Guards::default()), Chance(1));
        let mut tripped = None;
        for n in 0..60_000u64 {
            let side = if n % 2 == 0 { Side::Live } else { Side::Canary };
            let failed = side == Side::Canary && n > 50_000 && chance.next() < 0.2;
            let outcome = if failed {
                Outcome::Failed
            } else {
                Outcome::Answered
            };
            let verdict = watched.count(side, outcome, 1, Duration::from_millis(1), [0.5]);
            if verdict.is_some() {
                tripped = Some(n);
                break;
            }
        }
        assert!(tripped.is_some_and(|n| n < 52_000), "{tripped:?}");
    }

    #[test]
    fn a_score_shift_warns_once_and_acts_if_told_to() {
        let game = Game { shift: 0.1, ..FAIR };
        let (_, warned) = play(&game, 30_000, &Guards::default(), 1).unwrap();
        assert!(
            !warned.rolls_back && warned.why.contains("PSI"),
            "{warned:?}"
        );
        let acting = Guards {
            score_shift_acts: true,
            ..Guards::default()
        };
        assert!(play(&game, 30_000, &acting, 1).unwrap().1.rolls_back);
        let off = Guards {
            score_shift: None,
            ..Guards::default()
        };
        assert_eq!(play(&game, 30_000, &off, 1), None);
    }
}
