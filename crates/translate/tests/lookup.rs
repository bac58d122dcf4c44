//! Places in the tables of indirect branches.

use proptest::prelude::*;
use std::collections::HashMap;
use translate::{LOOKUP_ENTRIES, LookupEntry, LookupTables, lookup_slots};

type Entries = Box<[LookupEntry; 2 * LOOKUP_ENTRIES as usize]>;

fn emptied() -> Entries {
    let empty = (0..2 * LOOKUP_ENTRIES as usize).map(LookupEntry::empty).collect::<Vec<_>>();
    empty.try_into().expect("as many")
}

/// The table that an address is found in: 0 or 1.
fn table_of(entries: &Entries, va: u64) -> Option<usize> {
    let tag = va.wrapping_neg();
    let found = lookup_slots(va).map(|slot| entries[slot].tag == tag);
    assert_ne!(found, [true, true], "{va:#x} has two places");
    found.iter().position(|found| *found)
}

/// Addresses whose first places are the same, in kernel text.
fn rivals(count: usize) -> Vec<u64> {
    let text = 0xffff_ffff_8100_0000u64..0xffff_ffff_8200_0000;
    let [wanted, _] = lookup_slots(text.start);
    text.filter(|va| lookup_slots(*va)[0] == wanted).take(count).collect()
}

/// What came first keeps the faster place, until both are taken.
#[test]
fn the_first_stay() {
    let mut entries = emptied();
    let rivals = rivals(3);
    for (number, va) in rivals.iter().enumerate().take(2) {
        LookupTables::new(&mut entries).insert(*va, 100 + number as u64);
        assert_eq!(table_of(&entries, *va), Some(number));
    }
    let [_, second] = lookup_slots(rivals[2]);
    entries[second] = LookupEntry::new(1 << 40, 7);
    LookupTables::new(&mut entries).insert(rivals[2], 102);
    assert_eq!(table_of(&entries, rivals[2]), Some(0));
    assert_eq!(table_of(&entries, rivals[0]), Some(1), "it goes to its second place");
    assert_eq!(entries[second].host, 7);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever comes and goes: an address leads where it was last put or nowhere, and who was just put
    /// there is found. Addresses are few enough to be rivals often.
    #[test]
    fn they_lead_where_they_should(
        steps in prop::collection::vec((any::<prop::sample::Index>(), 0..4u8), 1..2000),
    ) {
        let addresses: Vec<u64> = rivals(40);
        let mut entries = emptied();
        let mut model = HashMap::new();
        for (number, (index, what)) in steps.iter().enumerate() {
            let (va, host) = (*index.get(&addresses), number as u64 + 1);
            let mut tables = LookupTables::new(&mut entries);
            if *what == 0 {
                tables.remove(va);
                model.remove(&va);
                prop_assert_eq!(tables.find(va), None);
            } else {
                tables.insert(va, host);
                model.insert(va, host);
                prop_assert_eq!(tables.find(va), Some(host));
            }
            for va in &addresses {
                let found = LookupTables::new(&mut entries).find(*va);
                prop_assert!(found.is_none() || found.as_ref() == model.get(va));
                prop_assert_eq!(table_of(&entries, *va).is_some(), found.is_some());
            }
        }
        LookupTables::new(&mut entries).clear();
        prop_assert!(entries == emptied());
    }
}
