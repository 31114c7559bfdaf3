/* Each kind of event, a known number of times. A kind is called with the vCPU's number in %r15,
 * keeps that, %rsp and the interrupt flag, and may use any other register. */

    .macro kind name, label
    .section .kindnames, "a"
name_\label: .asciz "\name"
    .section .kinds, "a"
    .quad name_\label, \label
    .text
\label:
    .endm

    .macro count which                  /* the guest's own tally, told at the end */
    lock incl counted + 4 * \which
    .endm

    .section .kinds, "a"
    .globl kinds
kinds:

    .macro toggle register, bit, times
    movl $(2 * \times), %ecx
1:  movq %\register, %rax
    btcq $\bit, %rax
    movq %rax, %\register
    decl %ecx
    jnz 1b
    ret
    .endm

    kind cr0, kind_cr0
    toggle cr0, 18, N_CR0               /* AM */

    kind cr4, kind_cr4
    toggle cr4, 7, N_CR4                /* PGE */

    kind cr3, kind_cr3
    movl $N_CR3, %ecx
    movl $PML4_A, %eax
    movl $PML4_B, %edx
1:  movq %rdx, %cr3
    movq %rax, %cr3
    decl %ecx
    jnz 1b
    ret

    kind xcr0, kind_xcr0
    movq %cr4, %rax
    btsq $18, %rax                      /* OSXSAVE */
    movq %rax, %cr4
    movl $N_XCR0, %esi
    xorl %ecx, %ecx
    xorl %edx, %edx
1:  movl $3, %eax
    xsetbv
    movl $1, %eax
    xsetbv
    decl %esi
    jnz 1b
    movq %cr4, %rax
    btrq $18, %rax
    movq %rax, %cr4
    ret

    kind msr, kind_msr
    movl $0xc0000082, %ecx              /* LSTAR */
    movl $N_MSR, %esi
    movl $MSR_HIGH, %edx
    movl $MSR_LOW, %eax
1:  wrmsr
    incl %eax
    decl %esi
    jnz 1b
    ret

    kind cpuid, kind_cpuid
    movl $N_CPUID, %esi
1:  movl $CPUID_LEAF, %eax
    movl $CPUID_SUBLEAF, %ecx
    cpuid
    cmpl $0x566e6558, %ebx              /* "XenV": the answer reached the registers */
    jne 2f
    count C_CPUID
2:  decl %esi
    jnz 1b
    ret

    kind int3, kind_int3
    .rept N_INT3
    int3
    .endr
    ret

    kind trap, kind_trap                /* #DB after the instruction behind popf */
    .rept N_TRAP
    pushfq
    orl $0x100, (%rsp)
    popfq
    nop
    .endr
    ret

    kind icebp, kind_icebp
    .rept N_ICEBP
    .byte 0xf1
    .endr
    ret

    .macro request
    movl $24, %edi                      /* HVMOP_guest_request_vm_event */
    movl $0, %esi                       /* not by xor: flags are looked at */
    call HYPERCALLS + 34 * 32           /* hvm_op */
    .endm

    kind request, kind_request
    movl $N_REQUEST, %ebp
1:  request
    decl %ebp
    jnz 1b
    ret

    kind step, kind_step                /* instructions to be stepped over, between two requests */
    request
    .rept N_STEP
    nop
    .endr
    request
    ret

    kind desc, kind_desc
    testl %r15d, %r15d                  /* one task register, so vCPU 0 only */
    jnz 2f
    sgdt scratch
    movw scratch, %ax
    cmpw gdtr, %ax
    jne 1f
    count C_DESC
1:  lgdt gdtr
    sidt scratch
    lidt idtr
    sldt %eax
    lldt %ax
    str %eax
    andb $~2, tss_descriptor + 5        /* not busy, or ltr faults */
    movl $SEL_TSS, %eax
    ltr %ax
2:  ret

    kind read, kind_read
    movabsq $(HIGH + PAGE_READ + OFF_READ), %rdx
    movl $N_READ, %ecx
1:  movb (%rdx), %al
    decl %ecx
    jnz 1b
    ret

    kind write, kind_write
    movabsq $(HIGH + PAGE_WRITE + OFF_WRITE), %rdx
    movl $N_WRITE, %ecx
1:  movl %ecx, (%rdx)
    decl %ecx
    jnz 1b
    ret

    kind exec, kind_exec
    movabsq $(HIGH + PAGE_EXEC + OFF_EXEC), %rdx
    movl $N_EXEC, %ecx
1:  call *%rdx
    decl %ecx
    jnz 1b
    ret

    /* How long one event takes, seen from here: the last SAMPLE_COUNT times in TSC ticks. */
    .macro sampled instruction:vararg
    rdtsc
    movl %eax, %r8d
    \instruction
    rdtsc
    subl %r8d, %eax
    movq SAMPLES, %rdx
    movl %edx, %ecx
    andl $(SAMPLE_COUNT - 1), %ecx
    movl %eax, SAMPLES + 8(,%rcx,4)
    incq %rdx
    movq %rdx, SAMPLES
    .endm

    kind bench-cr4, kind_bench_cr4
    movl $N_BENCH, %esi
1:  movq %cr4, %rdi
    btcq $2, %rdi                       /* TSD: xen-access masks PGE */
    sampled movq %rdi, %cr4
    decl %esi
    jnz 1b
    ret

    kind bench-cpuid, kind_bench_cpuid
    movl $N_BENCH, %esi
1:  sampled cpuid                       /* of whatever leaf */
    decl %esi
    jnz 1b
    ret

    kind ipi, kind_ipi
    movl $N_IPI, %esi
    pushfq
    sti
1:  movl $0x83f, %ecx                   /* x2APIC self IPI */
    movl $VECTOR_IPI, %eax
    xorl %edx, %edx
    wrmsr
    nop
    decl %esi
    jnz 1b
    popfq
    ret

    .macro constants                    /* every general register to its own constant */
    movabsq $R_RBX, %rbx
    movabsq $R_RCX, %rcx
    movabsq $R_RDX, %rdx
    movabsq $R_RBP, %rbp
    movabsq $R_R8, %r8
    movabsq $R_R9, %r9
    movabsq $R_R10, %r10
    movabsq $R_R11, %r11
    movabsq $R_R12, %r12
    movabsq $R_R13, %r13
    movabsq $R_R14, %r14
    .endm

    kind regs, kind_regs                /* two requests with the whole state known */
    pushfq
    cli
    movq %rsp, saved_rsp(,%r15,8)
    leaq msr_table(%rip), %rsi
1:  movl (%rsi), %ecx
    jrcxz 2f
    movl 4(%rsi), %eax
    movl 8(%rsi), %edx
    wrmsr
    addq $12, %rsi
    jmp 1b
2:  movabsq $R_CR2, %rax
    movq %rax, %cr2
    movl $R_DR7, %eax                   /* enables breakpoint 1, on an address never run */
    movq %rax, %dr1
    movq %rax, %dr7
    movq %r15, %rax
    shlq $12, %rax
    movabsq $R_RSP + 8, %rdx            /* the call into the hypercall page pushes once */
    leaq (%rdx,%rax), %rsp
    movabsq $R_R15, %rax
    addq %rax, %r15
    pushq $R_RFLAGS
    popfq
    constants
    request
    constants
    request
    movabsq $R_R15, %rax
    subq %rax, %r15
    movq saved_rsp(,%r15,8), %rsp
    movl $0x400, %eax
    movq %rax, %dr7
    popfq
    ret

    kind held, kind_held                /* writes, read back: those that did not happen are counted */
    movl $N_HELD, %esi
1:  movq %cr4, %rdi
    btcq $7, %rdi                       /* PGE */
    movq %rdi, %cr4
    movq %cr4, %rax
    cmpq %rdi, %rax
    je 2f
    count C_HELD_CR4
2:  movl $0xc0000082, %ecx              /* LSTAR */
    rdmsr
    movl %eax, %ebx
    incl %eax
    wrmsr
    rdmsr
    cmpl %ebx, %eax
    jne 3f
    count C_HELD_MSR
3:  decl %esi
    jnz 1b
    ret

    kind ask, kind_ask                  /* requests that are answered with a register */
    movl $N_ASK, %ebp
1:  xorl %ebx, %ebx
    request
    cmpl $ASKED, %ebx
    jne 2f
    count C_ASKED
2:  decl %ebp
    jnz 1b
    ret

    kind forged, kind_forged            /* a read of what is not there, and a write that leaves nothing */
    movabsq $(HIGH + PAGE_READ + OFF_READ), %rdx
    movl (%rdx), %eax
    cmpl $FORGED, %eax
    jne 1f
    count C_FORGED
1:  movabsq $(HIGH + PAGE_WRITE + OFF_WRITE), %rdx
    movl $FORGED, %eax
    movl %eax, (%rdx)
    cmpl (%rdx), %eax
    je 2f
    count C_UNWRITTEN
2:  ret

    .section .kinds, "a"
    .quad 0
    .text

    .data
    .align 8
saved_rsp: .fill MAX_VCPUS, 8, 0
scratch: .quad 0, 0
    .macro msr index, value
    .long \index, \value & 0xffffffff, \value >> 32
    .endm
msr_table:
    msr 0x174, R_SYSENTER_CS
    msr 0x175, R_SYSENTER_ESP
    msr 0x176, R_SYSENTER_EIP
    msr 0xc0000081, R_MSR_STAR
    msr 0xc0000082, R_MSR_LSTAR
    msr 0xc0000100, R_FS_BASE
    msr 0xc0000101, R_GS_BASE
    msr 0xc0000102, R_SHADOW_GS
    .long 0
