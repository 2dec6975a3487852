//! Which version answers: shares of a line from 0 to 1, and the place on it that a key always has.
//!
//! A key's place is XXH3-64 of its bytes, seeded by XXH3-64 of `MODEL NUL SALT`, over 2^64: logs can be joined with it.
//! The first canary (in order of labels) lies at the line's beginning and grows upwards, the second at its end and grows
//! downwards, live between them: growing a canary takes keys from live alone. Further canaries follow the first.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::tensor::{Data, Tensor};

/// The share of a version.
#[derive(Clone, Debug, PartialEq)]
struct Part {
    label: String,
    /// Where it ends on the line; it begins where the one before ends.
    end: f64,
}

#[derive(Debug)]
pub struct Split {
    parts: Vec<Part>,
    seed: u64,
    /// Of requests without a key.
    dealt: AtomicU64,
}

impl Split {
    /// `weights`: any positive numbers; shares are in their proportion. Those of 0 get nothing.
    pub fn new(weights: &BTreeMap<String, f64>, live: &str, model: &str, salt: &str) -> Split {
        let total: f64 = weights.values().sum();
        let mut canaries: Vec<(&String, f64)> = weights
            .iter()
            .filter(|(label, weight)| *label != live && **weight > 0.0)
            .map(|(label, weight)| (label, weight / total))
            .collect();
        canaries.sort_by_key(|(label, _)| order(label));
        let last = (canaries.len() > 1).then(|| canaries.remove(1));
        let mut parts = Vec::with_capacity(canaries.len() + 2);
        let mut end = 0.0;
        for (label, share) in canaries {
            end += share;
            let label = label.clone();
            parts.push(Part { label, end });
        }
        if weights.get(live).is_some_and(|weight| *weight > 0.0) {
            let label = live.to_owned();
            let end = 1.0 - last.map_or(0.0, |(_, share)| share);
            parts.push(Part { label, end });
        }
        if let Some((label, _)) = last {
            let label = label.clone();
            parts.push(Part { label, end: 1.0 });
        }
        if let Some(whole) = parts.last_mut() {
            whole.end = 1.0; // whatever rounding left
        }
        Split {
            parts,
            seed: seed(model, salt),
            dealt: AtomicU64::new(0),
        }
    }

    /// The label for a request. None: no version has a share.
    pub fn choose(&self, key: Option<&[u8]>) -> Option<&str> {
        match self.parts.as_slice() {
            [] => None,
            [only] => Some(&only.label),
            parts => {
                let hash = match key {
                    Some(key) => xxh3_64_with_seed(key, self.seed),
                    None => mixed(self.dealt.fetch_add(1, Ordering::Relaxed) ^ self.seed),
                };
                let place = (hash >> 11) as f64 / (1u64 << 53) as f64;
                let at = parts.iter().position(|part| place < part.end);
                at.map(|at| parts[at].label.as_str())
            }
        }
    }

    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().map(|part| part.label.as_str())
    }

    /// Percent by label.
    pub fn percents(&self) -> Vec<(&str, f64)> {
        let mut from = 0.0;
        let each = |part: &'_ Part| {
            let share = part.end - from;
            from = part.end;
            share * 100.0
        };
        let shares: Vec<f64> = self.parts.iter().map(each).collect();
        self.labels().zip(shares).collect()
    }
}

fn seed(model: &str, salt: &str) -> u64 {
    xxh3_64(format!("{model}\0{salt}").as_bytes())
}

/// Numbers as numbers, then names.
fn order(label: &str) -> (u64, String) {
    (label.parse().unwrap_or(u64::MAX), label.to_owned())
}

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
fn mixed(counter: u64) -> u64 {
    let mut z = counter.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The bytes of `column` in a request's first row: strings as they are, integers and booleans as text. None where it is
/// null, not there, or of a type that has no one spelling.
pub fn sticky_key(tensors: &[Tensor], column: &str) -> Option<Vec<u8>> {
    let tensor = tensors.iter().find(|tensor| tensor.name == column)?;
    let companion = (tensors.iter()).find(|t| t.name.strip_suffix(".null") == Some(column));
    let told =
        companion.map(|t| matches!(&t.data, Data::Bool(nulls) if nulls.first() == Some(&true)));
    let null = tensor.nulls.as_ref().and_then(|nulls| nulls.first());
    if told == Some(true) || null == Some(&true) || tensor.data.is_empty() {
        return None;
    }
    let text = match &tensor.data {
        Data::Bytes(texts) => return Some(texts.get(0).to_vec()),
        Data::Bool(v) => v[0].to_string(),
        Data::U8(v) => v[0].to_string(),
        Data::U16(v) => v[0].to_string(),
        Data::U32(v) => v[0].to_string(),
        Data::U64(v) => v[0].to_string(),
        Data::I8(v) => v[0].to_string(),
        Data::I16(v) => v[0].to_string(),
        Data::I32(v) => v[0].to_string(),
        Data::I64(v) => v[0].to_string(),
        Data::F32(_) | Data::F64(_) => return None,
    };
    Some(text.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Texts;

    fn split(weights: &[(&str, f64)]) -> Split {
        let weights = weights.iter().map(|(l, w)| ((*l).to_owned(), *w)).collect();
        Split::new(&weights, "1", "ctr", "salt")
    }

    fn answers(split: &Split, keys: u32) -> Vec<String> {
        (0..keys)
            .map(|key| {
                split
                    .choose(Some(format!("user{key}").as_bytes()))
                    .unwrap()
                    .to_owned()
            })
            .collect()
    }

    #[test]
    fn shares_are_within_half_a_point_over_100k_keys() {
        let of = split(&[("1", 70.0), ("2", 20.0), ("3", 10.0)]);
        let sticky = answers(&of, 100_000);
        let dealt: Vec<String> = (0..100_000)
            .map(|_| of.choose(None).unwrap().to_owned())
            .collect();
        for all in [sticky, dealt] {
            for (label, percent) in [("1", 70.0), ("2", 20.0), ("3", 10.0)] {
                let got = all.iter().filter(|l| *l == label).count() as f64 / 1000.0;
                assert!((got - percent).abs() < 0.5, "{label}: {got}");
            }
        }
    }

    #[test]
    fn a_growing_canary_takes_from_live_alone() {
        let before = answers(&split(&[("1", 85.0), ("2", 10.0), ("3", 5.0)]), 20_000);
        let grown = [
            split(&[("1", 65.0), ("2", 30.0), ("3", 5.0)]),
            split(&[("1", 40.0), ("2", 10.0), ("3", 50.0)]),
        ];
        for (canary, after) in ["2", "3"].iter().zip(grown) {
            for (was, is) in before.iter().zip(answers(&after, 20_000)) {
                assert!(*was == is || (was == "1" && is == *canary), "{was} -> {is}");
            }
        }
    }

    #[test]
    fn a_key_keeps_its_version_and_another_salt_deals_anew() {
        let weights = BTreeMap::from([("1".to_owned(), 50.0), ("2".to_owned(), 50.0)]);
        let (a, b) = (
            split(&[("1", 50.0), ("2", 50.0)]),
            Split::new(&weights, "1", "ctr", "other"),
        );
        assert_eq!(answers(&a, 1000), answers(&a, 1000));
        let moved = (answers(&a, 1000).into_iter())
            .zip(answers(&b, 1000))
            .filter(|(x, y)| x != y);
        assert!((400..600).contains(&moved.count()));
        // The documented place of a key, from XXH3-64 alone.
        let hash = xxh3_64_with_seed(b"user7", xxh3_64(b"ctr\0salt"));
        let expected = if (hash as f64) / 2f64.powi(64) < 0.5 {
            "2"
        } else {
            "1"
        };
        assert_eq!(a.choose(Some(b"user7")), Some(expected));
    }

    #[test]
    fn weights_of_nothing_get_nothing() {
        assert!(
            answers(&split(&[("1", 0.0), ("2", 100.0)]), 1000)
                .iter()
                .all(|l| l == "2")
        );
        assert_eq!(split(&[]).choose(None), None);
        let percents = split(&[("1", 90.0), ("2", 10.0)]);
        let told: Vec<(&str, i64)> = (percents.percents().iter())
            .map(|(l, p)| (*l, p.round() as i64))
            .collect();
        assert_eq!(told, [("2", 10), ("1", 90)]);
    }

    #[test]
    fn a_sticky_key_is_the_first_rows_text() {
        let mut texts = Texts::default();
        texts.push("Zoë".as_bytes());
        texts.push(b"b");
        let mut city = Tensor::new("city", vec![2], Data::Bytes(texts));
        let user = Tensor::new("user", vec![2], Data::I64(vec![-7, 8]));
        let price = Tensor::new("price", vec![1], Data::F64(vec![1.5]));
        let all = [city.clone(), user.clone(), price];
        assert_eq!(sticky_key(&all, "city").as_deref(), Some("Zoë".as_bytes()));
        assert_eq!(sticky_key(&all, "user").as_deref(), Some(&b"-7"[..]));
        assert_eq!(sticky_key(&all, "price"), None);
        assert_eq!(sticky_key(&all, "none"), None);
        city.nulls = Some(vec![true, false]);
        assert_eq!(sticky_key(&[city], "city"), None);
        let nulls = Tensor::new("user.null", vec![2], Data::Bool(vec![true, false]));
        assert_eq!(sticky_key(&[user, nulls], "user"), None);
    }
}
