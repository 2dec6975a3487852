//! Tree ensembles from LightGBM's text model (format v4), in f64, to the bits that LightGBM gives.

use crate::error::{Fault, Result};

/// |x| up to this is a zero (LightGBM's kZeroThreshold, an f32).
const ZERO: f64 = 1e-35_f32 as f64;
const MAX_NODES: usize = 1 << 28;

/// What the summed leaves become.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Link {
    Identity,
    /// 1 / (1 + exp(-s x)).
    Sigmoid(f64),
    Exp,
    /// log(1 + exp(x)).
    Softplus,
    /// sign(x) x^2.
    SignedSquare,
    Softmax,
    /// A sigmoid a class.
    Each(f64),
}

#[derive(Clone, Copy)]
struct Node {
    threshold: f64,
    feature: u32,
    /// A node, or the complement of a leaf.
    left: i32,
    right: i32,
    missing: Missing,
    default_left: bool,
    categorical: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Missing {
    None,
    Zero,
    Nan,
}

#[derive(Default)]
struct Tree {
    first_node: usize,
    nodes: usize,
    first_leaf: usize,
    first_bound: usize,
    first_word: usize,
}

/// A forest. `classes` trees make one round.
pub(super) struct Trees {
    nodes: Vec<Node>,
    leaves: Vec<f64>,
    /// Where the bit sets of categorical splits begin, tree by tree.
    bounds: Vec<usize>,
    words: Vec<u32>,
    trees: Vec<Tree>,
    pub classes: usize,
    pub features: usize,
    pub link: Link,
    /// Random forests give the mean of their rounds.
    averaged: bool,
}

impl Trees {
    pub fn parse(text: &str) -> Result<Trees> {
        let mut blocks = text.split("\nTree=");
        let head = blocks.next().unwrap_or_default();
        if !head.starts_with("tree") {
            return Err(wrong("it does not begin with 'tree'"));
        }
        let number = |key| -> Result<usize> {
            field(head, key)
                .unwrap_or("1")
                .parse()
                .map_err(|_| wrong(key))
        };
        let classes = number("num_tree_per_iteration")?.max(1);
        let mut trees = Trees {
            nodes: vec![],
            leaves: vec![],
            bounds: vec![],
            words: vec![],
            trees: vec![],
            classes,
            features: number("max_feature_idx")? + 1,
            link: link(field(head, "objective").unwrap_or_default(), classes)?,
            averaged: head.lines().any(|line| line == "average_output"),
        };
        for block in blocks {
            let block = block.split("end of trees").next().unwrap_or(block);
            trees.push(block)?;
        }
        if !trees.trees.len().is_multiple_of(classes) {
            return Err(wrong("its trees do not fill whole rounds"));
        }
        Ok(trees)
    }

    fn push(&mut self, block: &str) -> Result<()> {
        if field(block, "is_linear").is_some_and(|v| v != "0") {
            return Err(wrong("linear trees are not served"));
        }
        let leaves: Vec<f64> = list(block, "leaf_value")?;
        let count: usize = field(block, "num_leaves")
            .and_then(|v| v.parse().ok())
            .ok_or_else(|| wrong("num_leaves"))?;
        if leaves.len() != count || count == 0 || self.nodes.len() + count > MAX_NODES {
            return Err(wrong("leaf_value"));
        }
        let nodes = count - 1;
        let tree = Tree {
            first_node: self.nodes.len(),
            nodes,
            first_leaf: self.leaves.len(),
            first_bound: self.bounds.len(),
            first_word: self.words.len(),
        };
        if nodes > 0 {
            let split: Vec<u32> = list(block, "split_feature")?;
            let threshold: Vec<f64> = list(block, "threshold")?;
            let decision: Vec<u32> = list(block, "decision_type")?;
            let left: Vec<i32> = list(block, "left_child")?;
            let right: Vec<i32> = list(block, "right_child")?;
            if [
                split.len(),
                threshold.len(),
                decision.len(),
                left.len(),
                right.len(),
            ] != [nodes; 5]
            {
                return Err(wrong("a tree's lists differ in length"));
            }
            if field(block, "num_cat").is_some_and(|v| v != "0") {
                self.bounds.extend(list::<usize>(block, "cat_boundaries")?);
                self.words.extend(list::<u32>(block, "cat_threshold")?);
            }
            let sets = (self.bounds.len() - tree.first_bound).saturating_sub(1);
            let words = self.words.len() - tree.first_word;
            let bounds = &self.bounds[tree.first_bound..];
            if !bounds.is_sorted() || bounds.last().is_some_and(|&last| last > words) {
                return Err(wrong("cat_boundaries"));
            }
            for at in 0..nodes {
                let inside = |child: i32| {
                    // A child comes after its parent, so that no path runs in a circle.
                    if child < 0 {
                        (!child as usize) < count
                    } else {
                        (child as usize) < nodes && child as usize > at
                    }
                };
                let categorical = decision[at] & 1 == 1;
                let set = threshold[at] >= 0.0 && (threshold[at] as usize) < sets;
                if !inside(left[at])
                    || !inside(right[at])
                    || split[at] as usize >= self.features
                    || (categorical && !set)
                {
                    return Err(wrong("a split points outside its tree"));
                }
                self.nodes.push(Node {
                    threshold: threshold[at],
                    feature: split[at],
                    left: left[at],
                    right: right[at],
                    missing: match decision[at] >> 2 & 3 {
                        0 => Missing::None,
                        1 => Missing::Zero,
                        _ => Missing::Nan,
                    },
                    default_left: decision[at] & 2 != 0,
                    categorical,
                });
            }
        }
        self.leaves.extend(leaves);
        self.trees.push(tree);
        Ok(())
    }

    /// The raw scores of a row, one a class, added to `out`.
    pub fn add(&self, row: &[f64], out: &mut [f64]) {
        for (number, tree) in self.trees.iter().enumerate() {
            out[number % self.classes] += self.leaves[tree.first_leaf + self.leaf(tree, row)];
        }
        if self.averaged {
            let rounds = (self.trees.len() / self.classes).max(1) as f64;
            out.iter_mut().for_each(|sum| *sum /= rounds);
        }
    }

    fn leaf(&self, tree: &Tree, row: &[f64]) -> usize {
        if tree.nodes == 0 {
            return 0;
        }
        let nodes = &self.nodes[tree.first_node..][..tree.nodes];
        let mut at = 0_i32;
        while at >= 0 {
            let node = &nodes[at as usize];
            let value = row[node.feature as usize];
            let left = if node.categorical {
                self.in_set(tree, node, value)
            } else {
                node.numeric(value)
            };
            at = if left { node.left } else { node.right };
        }
        !at as usize
    }

    fn in_set(&self, tree: &Tree, node: &Node, value: f64) -> bool {
        // A cast to int, as LightGBM makes it; NaN and what is negative is in no set.
        if value.is_nan() || value <= -1.0 || value > f64::from(i32::MAX) {
            return false;
        }
        let (category, set) = (value as usize, node.threshold as usize);
        let bounds = &self.bounds[tree.first_bound + set..];
        let words = &self.words[tree.first_word + bounds[0]..tree.first_word + bounds[1]];
        words
            .get(category / 32)
            .is_some_and(|word| word >> (category % 32) & 1 == 1)
    }
}

impl Node {
    #[inline(always)]
    fn numeric(&self, value: f64) -> bool {
        let value = if value.is_nan() && self.missing != Missing::Nan {
            0.0
        } else {
            value
        };
        let missing = match self.missing {
            Missing::None => false,
            Missing::Zero => (-ZERO..=ZERO).contains(&value),
            Missing::Nan => value.is_nan(),
        };
        if missing {
            self.default_left
        } else {
            value <= self.threshold
        }
    }
}

impl Link {
    /// In place, over the classes of one row.
    pub fn apply(self, scores: &mut [f64]) {
        match self {
            Link::Identity => {}
            Link::Sigmoid(s) | Link::Each(s) => {
                scores
                    .iter_mut()
                    .for_each(|x| *x = 1.0 / (1.0 + (-s * *x).exp()));
            }
            Link::Exp => scores.iter_mut().for_each(|x| *x = x.exp()),
            Link::Softplus => scores.iter_mut().for_each(|x| *x = x.exp().ln_1p()),
            Link::SignedSquare => scores.iter_mut().for_each(|x| *x = x.signum() * *x * *x),
            Link::Softmax => {
                let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                scores.iter_mut().for_each(|x| *x = (*x - top).exp());
                let sum: f64 = scores.iter().sum();
                scores.iter_mut().for_each(|x| *x /= sum);
            }
        }
    }
}

/// LightGBM's ConvertOutput, by the objective's words.
fn link(objective: &str, classes: usize) -> Result<Link> {
    let mut words = objective.split(' ');
    let name = words.next().unwrap_or_default();
    let value = |key: &str| {
        let found = objective.split(' ').find_map(|w| w.strip_prefix(key));
        found.map_or(Some(1.0), |v| v.parse::<f64>().ok())
    };
    let slope = || value("sigmoid:").ok_or_else(|| wrong("objective"));
    Ok(match name {
        "binary" => Link::Sigmoid(slope()?),
        "cross_entropy" => Link::Sigmoid(1.0),
        "cross_entropy_lambda" => Link::Softplus,
        "poisson" | "gamma" | "tweedie" => Link::Exp,
        "multiclass" => Link::Softmax,
        "multiclassova" => Link::Each(slope()?),
        "regression" if objective.split(' ').any(|w| w == "sqrt") => Link::SignedSquare,
        "regression" | "regression_l1" | "huber" | "fair" | "quantile" | "mape" | "lambdarank"
        | "rank_xendcg" | "custom" | "none" | "" => Link::Identity,
        other => {
            let said = format!("the objective '{other}' of {classes} class(es) is not known");
            return Err(wrong(&said));
        }
    })
}

fn wrong(what: &str) -> Fault {
    Fault::internal(format!(
        "the text model of the trees cannot be served: {what}"
    ))
}

fn field<'t>(block: &'t str, key: &str) -> Option<&'t str> {
    let line = |line: &'t str| line.strip_prefix(key)?.strip_prefix('=');
    block.lines().find_map(line)
}

fn list<T: std::str::FromStr>(block: &str, key: &str) -> Result<Vec<T>> {
    let text = field(block, key).ok_or_else(|| wrong(key))?;
    let values = text.split_ascii_whitespace().map(str::parse);
    values
        .collect::<std::result::Result<_, _>>()
        .map_err(|_| wrong(key))
}
