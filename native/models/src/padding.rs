//! Makes a model deeper without changing what it computes, so that a small one costs what a larger one would: between its
//! own layers stand identity layers, whose two output projections are zero. For measurements; what is padded says so in
//! its name.

/// Most layers that a model is padded to.
const MOST: usize = 1024;

/// Where a model's own layers stand among all; both counts equal for a model as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Padding {
    /// Layers of its own.
    own: usize,
    /// All layers.
    all: usize,
}

/// What stands at a layer's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stand {
    /// The layer of the model's own whose weights it has.
    pub(crate) layer: usize,
    /// Whether its output projections are zero.
    pub(crate) identity: bool,
}

impl Padding {
    /// Layers of a model that has `own`, padded to `all` if that is asked for.
    ///
    /// # Errors
    /// If there are too few of them or too many.
    pub(crate) fn new(own: usize, all: Option<usize>) -> Result<Self, String> {
        match all {
            Some(all) if !(own..=MOST.max(own)).contains(&all) => {
                Err(format!("a model of {own} layers can be padded to {own}..={MOST} layers, not to {all}"))
            }
            _ => Ok(Self { own, all: all.unwrap_or(own) }),
        }
    }

    pub(crate) fn own(self) -> usize {
        self.own
    }

    pub(crate) fn all(self) -> usize {
        self.all
    }

    /// After how many of all layers the state is the one after `layers` of its own, with the identity layers that follow
    /// those: an early exit keeps its share of the depth.
    pub(crate) fn place(self, layers: usize) -> usize {
        layers * self.all / self.own
    }

    /// What stands at place `index` of all, counted from 0.
    pub(crate) fn at(self, index: usize) -> Stand {
        // The last own layer whose place is not behind.
        let layer = ((index + 1) * self.own).div_ceil(self.all) - 1;
        Stand { layer, identity: self.place(layer) != index }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_layers_are_spread_evenly_and_in_order() {
        for (own, all) in [(8, 8), (8, 40), (8, 11), (3, 7), (2, 1024)] {
            let padding = Padding::new(own, Some(all)).expect("enough layers");
            let stands: Vec<Stand> = (0..all).map(|i| padding.at(i)).collect();
            let kept: Vec<usize> = stands.iter().filter(|s| !s.identity).map(|s| s.layer).collect();
            assert_eq!(kept, (0..own).collect::<Vec<_>>(), "{own} in {all}");
            assert!(stands.is_sorted_by_key(|s| s.layer), "an identity layer follows the layer it copies");
            for layers in 1..=own {
                let before = stands[..padding.place(layers)].iter().filter(|s| !s.identity).count();
                assert_eq!(before, layers, "an exit after {layers} of {own} sees them all");
            }
        }
    }

    #[test]
    fn a_model_cannot_lose_layers() {
        for bad in [0, 7, 1025] {
            let refused = Padding::new(8, Some(bad)).expect_err("too few or too many");
            assert!(refused.contains("8..=1024") && refused.contains(&bad.to_string()), "{refused}");
        }
        assert_eq!(Padding::new(2000, None).map(Padding::all), Ok(2000));
    }
}
