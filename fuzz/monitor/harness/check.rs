//! What must hold after each step.
//!
//! - Numbers that the monitor keeps are in range.
//! - No frame that translations or shadow copies were made from is mapped writable in the running
//!   space, nor in the loaded runner once its commands are carried out, nor found writable by
//!   translated code.
//! - What is mapped in the user half, and in the kernel half outside its linear maps, is what the
//!   monitor remembers: what it forgot it could never take away.
//! - After a flush: no page is mapped but as the tables say now ([`against_tables`]).
//! - At the end: frames that are not the guest's are as they were, and so is the configuration.

use super::{
    guest,
    host::{self, Page, Pages, host},
};
use crate::{
    guest::{DIRECT_MAP, IMAGE_MAP, M2P, unfold},
    layout::{USER_TLB, key},
    runner::mailbox,
    state::{Monitor, page},
    sys::{EXEC, WRITE_ACCESS},
};
use boundary::at;
use translate::{USER_TLB_EMPTY, UserTlb};

/// The user half's process as it will be when its commands are done.
fn user_pages(m: &Monitor) -> Pages {
    if !m.is_separate() {
        return host().own().clone();
    }
    let number = m.runners.loaded;
    let mut pages = host().runners.get(&number).cloned().unwrap_or_default();
    if number != 0 {
        // Given to it or not yet: it does nothing else before.
        let orders = mailbox::orders_of(number);
        for c in orders.commands.iter().take(orders.count as usize) {
            host::command(&mut pages, c);
        }
    }
    pages
}

/// The guest kernel address of a host page, if it belongs to the kernel half.
fn kernel_address(m: &Monitor, host: u64, page: &Page) -> Option<u64> {
    let va = unfold(host);
    // With keys both halves are in one process, and the key says whose a page is. The user half
    // has pages with the key of the kernel too: those that are for the kernel's mode only.
    let ours = if m.is_separate() { true } else { page.key == key::KERNEL };
    let remembered = m.spaces.all[m.user_index()].user.get(host).is_some();
    (ours && (m.is_separate() || !remembered)).then_some(va)
}

/// Is it in the direct map, the image or the M2P, which are never looked at again?
fn is_linear(va: u64, page: &Page) -> bool {
    let pa = page.frame << 12;
    va.wrapping_sub(DIRECT_MAP) == pa || va.wrapping_sub(IMAGE_MAP) == pa || va == M2P
}

fn translated_user_memory() -> &'static UserTlb {
    // SAFETY: mapped; the monitor does not run now.
    unsafe { &*(USER_TLB as *const UserTlb) }
}

pub fn after_step(m: &mut Monitor) {
    let v = &m.vcpu;
    assert!(u64::from(v.kernel_root) < guest::FRAMES);
    assert!(u64::from(v.info_frame) <= guest::SHARED_INFO && v.info_offset <= 4096 - 64);
    assert!(m.spaces.current < m.spaces.all.len() && m.user_index() < m.spaces.all.len().max(1));
    if m.ended {
        return;
    }
    let writable = |m: &Monitor, at: u64, page: &Page| {
        let protected = m.frames[page.frame as usize].is_protected();
        assert!(
            page.prot & WRITE_ACCESS == 0 || !protected && !page.shadow,
            "frame {} is writable at {at:#x} and must not be",
            page.frame
        );
        assert!(page.prot & (WRITE_ACCESS | EXEC) != WRITE_ACCESS | EXEC || !protected);
    };
    let own = host().own().clone();
    for (at, page) in &own {
        writable(m, *at, page);
    }
    let user = user_pages(m);
    let index = m.user_index();
    let loaded = !m.is_separate() || index != 0;
    for (at, page) in user.iter().filter(|_| loaded) {
        writable(m, *at, page);
        let known = m.spaces.all[index].user.get(*at);
        if m.is_separate() || kernel_address(m, *at, page).is_none() {
            remembered(*at, page, known);
        }
    }
    for (at, page) in &own {
        let Some(va) = kernel_address(m, *at, page) else { continue };
        if !is_linear(va, page) {
            remembered(*at, page, m.space().kernel.get(va));
        }
    }
    if m.is_separate() {
        for (tag, delta) in places(&translated_user_memory().write) {
            if let Some(frame) = frame_seen(tag, delta) {
                assert!(!m.frames[frame as usize].is_protected(), "frame {frame} found writable");
            }
        }
    }
}

/// The monitor knows of the page, and of all its rights.
fn remembered(at: u64, page: &Page, known: crate::tlb::Installed) {
    assert!(known.is_some(), "forgotten: {at:#x} {page:?}");
    assert!(u64::from(known.frame()) == page.frame, "another frame at {at:#x}: {page:?}");
    assert!(known.write() || page.prot & WRITE_ACCESS == 0, "writable at {at:#x}: {page:?}");
    assert!(known.is_shadow() == page.shadow, "shadow at {at:#x}: {page:?}");
}

/// The pages that translated code finds: address, and how much further on the monitor sees it.
fn places(table: &translate::UserTlbTable) -> impl Iterator<Item = (u64, u64)> {
    let pairs = table.tags.iter().copied().zip(table.deltas.iter().copied());
    pairs.filter(|(tag, _)| *tag != USER_TLB_EMPTY).map(|(tag, delta)| (tag.wrapping_neg(), delta))
}

/// The frame seen there, unless it is in a window.
fn frame_seen(va: u64, delta: u64) -> Option<u64> {
    let seen = va.wrapping_add(delta);
    (at::RAM..at::RAM + (guest::ALL << 12)).contains(&seen).then(|| (seen - at::RAM) >> 12)
}

/// The tables were flushed: every page is mapped as they say, or with fewer rights.
/// `only` limits this to one page.
pub fn against_tables(m: &mut Monitor, only: Option<u64>) {
    if m.ended {
        return;
    }
    let root = u64::from(m.vcpu.kernel_root);
    let wanted = |va: u64| only.is_none_or(|page| page & !0xfff == va);
    let check = |va: u64, page: &Page, user: bool| {
        let Some(now) = guest::walk(root, va) else {
            panic!("{va:#x} is gone, but mapped {page:?}")
        };
        assert!(now.frame == page.frame, "{va:#x} is frame {}, but mapped {page:?}", now.frame);
        if page.prot & WRITE_ACCESS != 0 {
            assert!(now.write, "{va:#x} is read-only, but mapped {page:?}");
            assert!(now.dirty || !user, "{va:#x} is clean, but mapped {page:?}");
        }
        assert!(page.prot & EXEC == 0 || now.exec, "{va:#x} is NX, but mapped {page:?}");
        // Only its key keeps programs from a page of the kernel's; a runner's pages have none.
        let supervisor = page.key == key::KERNEL;
        assert!(!user || now.user || supervisor, "{va:#x} is the kernel's, but mapped {page:?}");
    };
    if m.user_half_is_loaded() && (!m.is_separate() || m.runners.loaded != 0) {
        for (at, page) in &user_pages(m) {
            let ours = m.is_separate() || kernel_address(m, *at, page).is_none();
            if ours && wanted(*at) {
                check(*at, page, true);
            }
        }
    }
    for (at, page) in &host().own().clone() {
        let Some(va) = kernel_address(m, *at, page) else { continue };
        if !is_linear(va, page) && wanted(va) {
            check(va, page, false);
        }
    }
    if m.is_separate() {
        let tlb = translated_user_memory();
        for (write, table) in [(false, &tlb.read), (true, &tlb.write)] {
            for (va, delta) in places(table) {
                let Some(frame) = frame_seen(va, delta).filter(|_| wanted(va)) else { continue };
                let now = guest::walk(root, va).expect("found, but gone");
                assert!(now.frame == frame && (now.write || !write), "{va:#x} found as {frame}");
            }
        }
    }
}

/// After the last step.
pub fn untouched(m: &Monitor) {
    assert!(guest::canaries_live(), "a frame that is not the guest's was written");
    let (now, then) = (page().setup, guest::setup(page().setup.flags));
    assert!(page().magic == boundary::MAGIC && now.max_pages == then.max_pages);
    assert!(now.nr_frames == then.nr_frames && now.cr3_mfn == then.cr3_mfn);
    assert!(m.setup.max_pages == then.max_pages && m.setup.nr_frames == then.nr_frames);
}
