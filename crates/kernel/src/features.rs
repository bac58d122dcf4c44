//! Features of the Xen interface that a kernel supports or cannot do without.
//!
//! Source: `xen/features.h` and the notes `FEATURES` and `SUPPORTED_FEATURES` of `xen/elfnote.h`.

/// One feature; its number is its bit in a feature map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are those of xen/features.h, which explains them")]
pub enum Feature {
    WritablePageTables = 0,
    WritableDescriptorTables = 1,
    AutoTranslatedPhysmap = 2,
    SupervisorModeKernel = 3,
    PaePgdirAbove4gb = 4,
    Dom0 = 11,
}

impl Feature {
    /// The features that the string form can name.
    const NAMED: [(&'static str, Feature); 6] = [
        ("writable_page_tables", Feature::WritablePageTables),
        ("writable_descriptor_tables", Feature::WritableDescriptorTables),
        ("auto_translated_physmap", Feature::AutoTranslatedPhysmap),
        ("supervisor_mode_kernel", Feature::SupervisorModeKernel),
        ("pae_pgdir_above_4gb", Feature::PaePgdirAbove4gb),
        ("dom0", Feature::Dom0),
    ];

    fn by_name(name: &str) -> Option<Feature> {
        Feature::NAMED.into_iter().find(|(known, _)| *known == name).map(|(_, feature)| feature)
    }

    const fn bit(self) -> u32 {
        1 << self as u8
    }
}

/// Which features a kernel supports, and which of them it requires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Feature map: bit n is feature n of `xen/features.h`.
    pub supported: u32,
    /// Feature map of those without which it does not run; always among the supported.
    pub required: u32,
}

impl Features {
    /// Whether the kernel can use `feature`.
    #[must_use]
    pub fn supports(&self, feature: Feature) -> bool {
        self.supported & feature.bit() != 0
    }

    /// Whether the kernel needs `feature`.
    #[must_use]
    pub fn requires(&self, feature: Feature) -> bool {
        self.required & feature.bit() != 0
    }

    /// Adds the string form: names between `|`, those required with a leading `!`.
    ///
    /// # Errors
    ///
    /// The name of a required feature that is not known; unknown optional ones are skipped.
    pub(crate) fn add_names(&mut self, text: &str) -> Result<(), String> {
        for word in text.split('|').filter(|word| !word.is_empty()) {
            let name = word.strip_prefix('!');
            match (Feature::by_name(name.unwrap_or(word)), name) {
                (Some(feature), None) => self.supported |= feature.bit(),
                (Some(feature), Some(_)) => {
                    self.supported |= feature.bit();
                    self.required |= feature.bit();
                }
                (None, None) => {}
                (None, Some(name)) => return Err(name.to_owned()),
            }
        }
        Ok(())
    }
}
