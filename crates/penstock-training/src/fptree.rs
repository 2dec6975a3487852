//! The FP-tree (Han, Pei, Yin, SIGMOD 2000) in flat arrays.
//!
//! Items are ranks: 0 is the most frequent. A path holds its ranks ascending, so frequent items sit near the root.

pub const ROOT: u32 = 0;
const NIL: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Node {
    item: u32,
    parent: u32,
    /// The next node of the same item.
    twin: u32,
    count: u64,
}

pub struct Tree {
    nodes: Vec<Node>,
    /// item -> its newest node.
    heads: Vec<u32>,
    /// item -> baskets that hold it.
    pub counts: Vec<u64>,
}

impl Tree {
    /// Build from paths **sorted** lexicographically (equal paths may repeat), with a count each.
    ///
    /// Sorted paths share their prefix with the one before, so no child is ever looked up.
    pub fn from_sorted<'a>(items: usize, paths: impl Iterator<Item = (&'a [u32], u64)>) -> Tree {
        let root = Node {
            item: NIL,
            parent: NIL,
            twin: NIL,
            count: 0,
        };
        let mut tree = Tree {
            nodes: vec![root],
            heads: vec![NIL; items],
            counts: vec![0; items],
        };
        let mut branch: Vec<u32> = Vec::new();
        for (path, count) in paths {
            let shared = branch
                .iter()
                .zip(path)
                .take_while(|&(&node, &item)| tree.nodes[node as usize].item == item)
                .count();
            branch.truncate(shared);
            for &item in &path[shared..] {
                let node = tree.nodes.len() as u32;
                let parent = branch.last().copied().unwrap_or(ROOT);
                tree.nodes.push(Node {
                    item,
                    parent,
                    twin: tree.heads[item as usize],
                    count: 0,
                });
                tree.heads[item as usize] = node;
                branch.push(node);
            }
            for &node in &branch {
                tree.nodes[node as usize].count += count;
            }
            for &item in path {
                tree.counts[item as usize] += count;
            }
        }
        tree
    }

    /// The tree of what stands above `item`, and the rank there -> the rank here of the items frequent with it.
    pub fn conditional(&self, item: u32, min_count: u64, work: &mut Work) -> (Tree, Vec<u32>) {
        let below = item as usize;
        work.counts.clear();
        work.counts.resize(below, 0);
        self.each_twin(item, |tree, node| {
            let count = tree.nodes[node as usize].count;
            tree.each_above(node, |above| work.counts[above as usize] += count);
        });
        // Ranks keep their order, so a filtered path stays ascending.
        work.ranks.clear();
        work.ranks.resize(below, NIL);
        let mut kept = Vec::new();
        for (old, &count) in work.counts.iter().enumerate() {
            if count >= min_count {
                work.ranks[old] = kept.len() as u32;
                kept.push(old as u32);
            }
        }
        work.flat.clear();
        work.paths.clear();
        if !kept.is_empty() {
            self.each_twin(item, |tree, node| {
                let start = work.flat.len();
                tree.each_above(node, |above| {
                    let rank = work.ranks[above as usize];
                    if rank != NIL {
                        work.flat.push(rank);
                    }
                });
                if work.flat.len() > start {
                    work.flat[start..].reverse();
                    work.paths.push((
                        start as u32,
                        work.flat.len() as u32,
                        tree.nodes[node as usize].count,
                    ));
                }
            });
        }
        let flat = &work.flat;
        let path = |&(start, end, _): &(u32, u32, u64)| &flat[start as usize..end as usize];
        work.paths.sort_unstable_by(|a, b| path(a).cmp(path(b)));
        let tree = Tree::from_sorted(kept.len(), work.paths.iter().map(|p| (path(p), p.2)));
        (tree, kept)
    }

    /// The items with counts if the tree is one branch, else None.
    pub fn is_branch(&self) -> bool {
        self.nodes
            .iter()
            .enumerate()
            .skip(1)
            .all(|(at, node)| node.parent as usize + 1 == at)
    }

    fn each_twin(&self, item: u32, mut visit: impl FnMut(&Tree, u32)) {
        let mut node = self.heads[item as usize];
        while node != NIL {
            visit(self, node);
            node = self.nodes[node as usize].twin;
        }
    }

    fn each_above(&self, node: u32, mut visit: impl FnMut(u32)) {
        let mut at = self.nodes[node as usize].parent;
        while at != ROOT {
            let above = self.nodes[at as usize];
            visit(above.item);
            at = above.parent;
        }
    }
}

/// Buffers that conditional trees are built in, kept between calls.
#[derive(Default)]
pub struct Work {
    counts: Vec<u64>,
    ranks: Vec<u32>,
    flat: Vec<u32>,
    paths: Vec<(u32, u32, u64)>,
}
