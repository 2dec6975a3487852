//! How large a request may be, whichever door it comes through.

use serde::Deserialize;

use crate::error::{Fault, Kind, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Of a body, after decompression.
    pub body_bytes: usize,
    /// Tensors in a request.
    pub tensors: usize,
    /// Dimensions of a tensor.
    pub rank: usize,
    /// A tensor's leading dimension.
    pub rows: usize,
    /// Elements of all tensors together.
    pub elements: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            body_bytes: 64 << 20,
            tensors: 2048,
            rank: 8,
            rows: 100_000,
            elements: 16 << 20,
        }
    }
}

impl Limits {
    pub fn too_long(&self) -> Fault {
        let limit = self.body_bytes;
        let text =
            format!("the body is longer than {limit} bytes, the limit; send fewer rows a request");
        Fault::new(Kind::TooLarge, text)
    }
}

/// What a request may still hold. One is made for a request and asked before each tensor is read.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    limits: Limits,
    tensors: usize,
    elements: usize,
}

impl Room {
    pub fn new(limits: Limits) -> Room {
        Room {
            limits,
            tensors: limits.tensors,
            elements: limits.elements,
        }
    }

    pub fn rank(&self) -> usize {
        self.limits.rank
    }

    pub fn tensor(&mut self) -> Result<()> {
        let too_many = || {
            let text = format!("more than {} tensors, the limit", self.limits.tensors);
            Fault::new(Kind::TooLarge, text)
        };
        self.tensors = self.tensors.checked_sub(1).ok_or_else(too_many)?;
        Ok(())
    }

    /// The elements of a tensor of this shape, taken from what is left. The fault does not name the tensor.
    pub fn elements(&mut self, shape: &[usize]) -> Result<usize> {
        let large = |text: String| Fault::new(Kind::TooLarge, text);
        if shape.len() > self.limits.rank {
            let (rank, limit) = (shape.len(), self.limits.rank);
            return Err(Fault::invalid(format!(
                "has {rank} dimensions, the limit is {limit}"
            )));
        }
        let rows = shape.first().copied().unwrap_or(1);
        if rows > self.limits.rows {
            let limit = self.limits.rows;
            return Err(large(format!(
                "has {rows} rows, the limit is {limit}; send several requests"
            )));
        }
        let count = shape.iter().try_fold(1_usize, |n, dim| n.checked_mul(*dim));
        let too_many = || {
            let limit = self.limits.elements;
            large(format!(
                "with shape {shape:?} takes the request beyond {limit} elements, the limit"
            ))
        };
        let count = count.ok_or_else(too_many)?;
        self.elements = self.elements.checked_sub(count).ok_or_else(too_many)?;
        Ok(count)
    }
}
