/* Xen notes, entry, exceptions, and what C cannot say. Frames as Xen makes them:
 * arch-x86/xen.h; notes: elfnote.h. */

	.section .note.Xen, "a", @note
	.macro NOTE type, value:vararg
	.balign 4
	.long 4, 2f - 1f, \type
	.asciz "Xen"
1:	\value
2:	.balign 4
	.endm
	NOTE 6, .asciz "hostile"
	NOTE 7, .asciz "1"
	NOTE 5, .asciz "xen-3.0"
	NOTE 8, .asciz "generic"
	NOTE 3, .quad 0xffffffff80000000
	NOTE 1, .quad _start
	NOTE 2, .quad hypercall_page

	.section .text.page, "ax"
	.balign 4096
	.globl hypercall_page
hypercall_page:
	.skip 4096

	.text
	.globl _start
_start:
	lea stack_end(%rip), %rsp
	mov %rsi, %rdi
	xor %ebp, %ebp
	call kernel_main
	ud2

/* Entries of exceptions: Xen pushed RCX and R11 below the frame. */
	.macro TRAP vector, code
	.globl trap_\vector
trap_\vector:
	pop %rcx
	pop %r11
	.ifeq \code
	push $0
	.endif
	push $\vector
	jmp trap_common
	.endm
	.irp v, 0,1,2,3,4,5,6,7,9,15,16,18,19,20,128,255
	TRAP \v, 0
	.endr
	.irp v, 8,10,11,12,13,14,17
	TRAP \v, 1
	.endr

	.globl upcall
upcall:
	pop %rcx
	pop %r11
	push $0
	push $256
	jmp trap_common

	.globl syscall_entry
syscall_entry:
	pop %rcx
	pop %r11
	push $0
	push $257
trap_common:
	push %rax
	push %rcx
	push %rdx
	push %rbx
	push %rbp
	push %rsi
	push %rdi
	push %r8
	push %r9
	push %r10
	push %r11
	push %r12
	push %r13
	push %r14
	push %r15
	cld
	mov %rsp, %rdi
	mov %rsp, %rbx
	and $-16, %rsp
	call trap
	mov %rbx, %rsp
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %r11
	pop %r10
	pop %r9
	pop %r8
	pop %rdi
	pop %rsi
	pop %rbp
	pop %rbx
	pop %rdx
	pop %rcx
	pop %rax
	add $16, %rsp
	push $0
	.globl iret_here
/* struct iret_context: RAX, R11, RCX, flags, then the frame. */
iret_here:
	push %rcx
	push %r11
	push %rax
	mov $23, %eax
	syscall
	ud2

/* long attempt(void (*f)(u64), u64 argument): -1, or the vector that interrupted f. */
	.globl attempt, attempt_back
attempt:
	push %rbx
	push %rbp
	push %r12
	push %r13
	push %r14
	push %r15
	mov %rsp, recover(%rip)
	mov %rdi, %rax
	mov %rsi, %rdi
	call *%rax
	mov $-1, %rax
1:	cld
	movq $0, recover(%rip)
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %rbp
	pop %rbx
	ret
/* From the exception's handler, with the result in RDI. */
attempt_back:
	mov recover(%rip), %rsp
	mov %rdi, %rax
	jmp 1b

/* void iret_to(u64 frame[9]): IRET with the frame as it is; comes back by an
 * exception, or at iret_landing. */
	.globl iret_to, iret_landing
iret_to:
	mov %rdi, %rsp
	mov $23, %eax
	syscall
	ud2
iret_landing:
	pushfq
	pop %rdi
	mov %rdi, landed_flags(%rip)
	mov $-2, %rdi
	jmp attempt_back

/* void native_iret_to(u64 frame[5]) */
	.globl native_iret_to
native_iret_to:
	mov %rdi, %rsp
	iretq

/* void jump_to(u64 va): what is there returns to the caller, if it does. */
	.globl jump_to
jump_to:
	xor %eax, %eax
	xor %ecx, %ecx
	xor %edx, %edx
	xor %ebx, %ebx
	xor %esi, %esi
	jmp *%rdi

/* void jump_loaded(u64 va): with `loaded` in all registers, on a stack there. */
	.globl jump_loaded, loaded
jump_loaded:
	mov loaded(%rip), %rax
	lea -512(%rax), %rsp
	mov %rax, %rcx
	mov %rax, %rdx
	mov %rax, %rbx
	mov %rax, %rbp
	mov %rax, %rsi
	mov %rax, %r8
	mov %rax, %r9
	mov %rax, %r10
	mov %rax, %r11
	mov %rax, %r12
	mov %rax, %r13
	mov %rax, %r14
	mov %rax, %r15
	jmp *%rdi
	.bss
loaded:
	.quad 0
	.text

/* void with_stack(u64 rsp): an invalid instruction on that stack. */
	.globl with_stack
with_stack:
	mov %rdi, %rsp
	ud2

/* u64 call_with_stack(u64 rsp): XENVER_pagesize on that stack. */
	.globl call_with_stack
call_with_stack:
	mov %rsp, %r12
	mov %rdi, %rsp
	mov $17, %eax
	mov $7, %edi
	xor %esi, %esi
	syscall
	mov %r12, %rsp
	ret

/* Code for user mode: copied to a page. */
	.globl user_code, user_code_end
user_code:
	syscall
1:	jmp 1b
user_code_end:

	.bss
	.balign 4096
	.globl stack_guard, stack_end
stack_guard:
	.skip 4096
	.skip 65536
stack_end:
