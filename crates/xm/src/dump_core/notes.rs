//! Notes of core files (elf(5)): the registers, and what the guest's kernel has to say of itself.

use std::fs::File;
use std::os::unix::fs::FileExt;

use control::Registers;

use super::format::PAGE;
use super::next_data;

/// `NT_PRSTATUS`.
const PRSTATUS: u32 = 1;
/// Size of `struct elf_prstatus` on x86-64, and where the process id and the registers are in it.
const PRSTATUS_SIZE: usize = 336;
const PID: usize = 32;
const REGISTERS: usize = 112;
/// Selectors of a kernel that Xen runs (xen-x86_64.h), and of a program.
const KERNEL_SELECTORS: (u64, u64) = (0xe030, 0xe02b);
const PROGRAM_SELECTORS: (u64, u64) = (0xe033, 0xe02b);
/// Longest note of the kernel's that is taken over, in bytes.
const LONGEST: usize = 2 * PAGE as usize;
/// Its name.
const VMCOREINFO: &[u8; 11] = b"VMCOREINFO\0";

/// One note: name, type and content, each padded to four bytes.
pub(super) fn note(name: &[u8], kind: u32, content: &[u8]) -> Vec<u8> {
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&length(name));
    bytes.extend_from_slice(&length(content));
    bytes.extend_from_slice(&kind.to_le_bytes());
    for part in [name, content] {
        bytes.extend_from_slice(part);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// The registers of a vCPU as a debugger reads them.
pub(super) fn registers(r: &Registers) -> Vec<u8> {
    let mut content = vec![0; PRSTATUS_SIZE];
    let mut put = |offset: usize, value: &[u8]| {
        if let Some(to) = content.get_mut(offset..offset + value.len()) {
            to.copy_from_slice(value);
        }
    };
    // Debuggers tell threads by it; the vCPU is none of the guest's processes.
    put(PID, &1_u32.to_le_bytes());
    let [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15] = r.general;
    let (cs, ss) = if r.kernel { KERNEL_SELECTORS } else { PROGRAM_SELECTORS };
    // In the order of `struct user_regs_struct`; no system call is under way (orig_rax).
    let all = [
        r15,
        r14,
        r13,
        r12,
        rbp,
        rbx,
        r11,
        r10,
        r9,
        r8,
        rax,
        rcx,
        rdx,
        rsi,
        rdi,
        u64::MAX,
        r.rip,
        cs,
        r.rflags,
        rsp,
        ss,
    ];
    for (at, value) in all.iter().enumerate() {
        put(REGISTERS + 8 * at, &value.to_le_bytes());
    }
    note(b"CORE\0", PRSTATUS, &content)
}

/// The note that Linux keeps in its memory for the kernel that is started after a crash
/// (`vmcoreinfo_note`): its release, addresses and layouts, by which `crash` understands the rest.
pub(super) fn find_vmcoreinfo(memory: &File, length: u64) -> std::io::Result<Option<Vec<u8>>> {
    let mut at = 0;
    while let Some((start, end)) = next_data(memory, at, length)? {
        for page in (start..end).step_by(PAGE as usize) {
            let mut head = [0; 36];
            memory.read_exact_at(&mut head, page)?;
            let Some(size) = vmcoreinfo_size(&head) else { continue };
            let mut note = vec![0; size];
            if memory.read_exact_at(&mut note, page).is_ok() {
                return Ok(Some(note));
            }
        }
        at = end;
    }
    Ok(None)
}

/// The whole note's size, if a page begins with it.
fn vmcoreinfo_size(head: &[u8; 36]) -> Option<usize> {
    let word = |at: usize| head.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
    let is_it = word(0)? == VMCOREINFO.len() as u32
        && word(8)? == 0
        && head.get(12..23)? == VMCOREINFO
        && head.get(24..34)? == b"OSRELEASE=";
    let size = usize::try_from(word(4)?).ok()?.checked_next_multiple_of(4)?.checked_add(24)?;
    (is_it && size <= LONGEST).then_some(size)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn vmcoreinfo(text: &[u8]) -> Vec<u8> {
        note(VMCOREINFO, 0, text)
    }

    #[test]
    fn notes_are_padded() {
        let bytes = note(b"CORE\0", 7, b"abcde");
        assert_eq!(bytes, b"\x05\0\0\0\x05\0\0\0\x07\0\0\0CORE\0\0\0\0abcde\0\0\0");
    }

    #[test]
    fn registers_lie_where_debuggers_look() {
        let mut r = Registers { rip: 0x1122, rflags: 0x246, kernel: true, ..Registers::default() };
        r.general[4] = 0x3344;
        let bytes = registers(&r);
        let at = |index: usize| {
            let start = 20 + REGISTERS + 8 * index;
            u64::from_le_bytes(bytes[start..start + 8].try_into().unwrap())
        };
        assert_eq!((at(16), at(17), at(18), at(19)), (0x1122, 0xe030, 0x246, 0x3344));
        assert_eq!(bytes.len(), 20 + PRSTATUS_SIZE);
    }

    #[test]
    fn only_the_kernels_own_note_is_taken() {
        let good = vmcoreinfo(b"OSRELEASE=6.1\n");
        let mut head = [0; 36];
        head.copy_from_slice(&good[..36]);
        assert_eq!(vmcoreinfo_size(&head), Some(good.len()));
        for broken in [0, 8, 12, 24] {
            let mut bad = head;
            bad[broken] ^= 1;
            assert_eq!(vmcoreinfo_size(&bad), None);
        }
        head[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(vmcoreinfo_size(&head), None, "too long");
    }
}
