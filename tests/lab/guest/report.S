/* What the guest says, and its interrupts. */

    .globl report, interrupts_setup, beat_start
    .text
/* "lab: done" and the guest's own tallies, in facts.py's order. */
report:
    leaq text_done(%rip), %rsi
    call puts
    xorl %ebx, %ebx
1:  movl counted(,%rbx,4), %eax
    call put_number
    incl %ebx
    cmpl $COUNTERS, %ebx
    jb 1b
new_line:
    movb $'\n', %al
    outb %al, $0xe9
    ret

puts:
    movb (%rsi), %al
    testb %al, %al
    jz 1f
    outb %al, $0xe9
    incq %rsi
    jmp puts
1:  ret

put_number:                             /* a space and %eax in hex */
    movl %eax, %edx
    movb $' ', %al
    outb %al, $0xe9
    movl $8, %ecx
1:  roll $4, %edx
    movl %edx, %eax
    andl $15, %eax
    movb digits(%rax), %al
    outb %al, $0xe9
    decl %ecx
    jnz 1b
    ret

/* Faults say which and where and stop; #DB, #BP and the two interrupts are counted. */
interrupts_setup:
    xorl %ecx, %ecx
    leaq faults(%rip), %rax
1:  call set_gate
    addq $16, %rax
    incl %ecx
    cmpl $32, %ecx
    jb 1b
    movl $1, %ecx
    leaq on_debug(%rip), %rax
    call set_gate
    movl $3, %ecx
    leaq on_breakpoint(%rip), %rax
    call set_gate
    movl $VECTOR_IPI, %ecx
    leaq on_ipi(%rip), %rax
    call set_gate
    movl $VECTOR_BEAT, %ecx
    leaq on_beat(%rip), %rax
set_gate:                               /* vector %ecx to the code at %rax (below 4 GiB) */
    movl %ecx, %edi
    shll $4, %edi
    movl %eax, %edx
    andl $0xffff, %edx
    orl $(SEL_CS << 16), %edx
    movl %edx, IDT(%rdi)
    movl %eax, %edx
    andl $0xffff0000, %edx
    orl $0x8e00, %edx
    movl %edx, IDT + 4(%rdi)
    movq $0, IDT + 8(%rdi)
    ret

    .align 16
faults:
    .set vector, 0
    .rept 32
    .align 16
    pushq $vector
    jmp fault
    .set vector, vector + 1
    .endr
fault:
    leaq text_fault(%rip), %rsi
    call puts
    xorl %ebx, %ebx
1:  movl (%rsp,%rbx,8), %eax            /* vector, perhaps an error code, rip, cs, rflags */
    call put_number
    incl %ebx
    cmpl $5, %ebx
    jb 1b
    call new_line
2:  cli
    hlt
    jmp 2b

on_breakpoint:
    lock incl counted + 4 * C_INT3
    iretq
on_debug:
    btrl $8, 16(%rsp)                   /* TF: set means a single-step trap, else icebp */
    jc 1f
    lock incl counted + 4 * C_ICEBP
    iretq
1:  lock incl counted + 4 * C_TRAP
    iretq
on_ipi:
    lock incl counted + 4 * C_IPI
    pushq %rax
    pushq %rcx
    pushq %rdx
    call end_of_interrupt
    popq %rdx
    popq %rcx
    popq %rax
    iretq
end_of_interrupt:
    movl $0x80b, %ecx
    xorl %eax, %eax
    xorl %edx, %edx
    wrmsr
    ret

/* A line now and then with each vCPU's progress: the proof that the guest runs on. Often from a
 * guest that works; once a second from an idle one, whose seconds pass in no time in Bochs. */
on_beat:
    .irp register, rax, rbx, rcx, rdx, rsi
    pushq %\register
    .endr
    leaq text_beat(%rip), %rsi
    call puts
    lock incl beats
    movl beats, %eax
    call put_number
    xorl %ebx, %ebx
1:  movl PROGRESS(,%rbx,4), %eax
    call put_number
    incl %ebx
    cmpl cpus, %ebx
    jb 1b
    call new_line
    call end_of_interrupt
    call beat_arm
    .irp register, rsi, rdx, rcx, rbx, rax
    popq %\register
    .endr
    iretq
beat_start:
    xorl %edx, %edx
    movl $0x83e, %ecx                   /* divide by 1; Xen's APIC bus ticks every 10 ns */
    movl $11, %eax
    wrmsr
    movl $0x832, %ecx
    movl $VECTOR_BEAT, %eax
    wrmsr
beat_arm:                               /* one at a time: what a starved guest misses is not made up for */
    xorl %edx, %edx
    movl $0x838, %ecx
    movl $100000000, %eax
    cmpl $0, forever
    je 1f
    movl $20000000, %eax
1:  wrmsr
    ret

    .data
digits: .ascii "0123456789abcdef"
text_done: .asciz "lab: done"
text_beat: .asciz "lab: beat"
text_fault: .asciz "lab: fault"
beats: .long 0
