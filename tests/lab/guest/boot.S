/* The lab's guest: a PVH kernel that does what its command line says, word by word.
 *
 * "smp" starts all other vCPUs on the same words, "forever" repeats them, "beat" tells of the progress
 * afterwards ("forever" does that too); every other word is a kind of
 * kinds.S. Capital names (N_CR3, R_RBX, ...) are constants of facts.py. %r15 is the vCPU's number
 * throughout. Output goes to port 0xe9, which Xen prints on its console. */

    .section .note.Xen, "a", @note
    .align 4
    .long 4, 4, 18                      /* XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz "Xen"
    .long _start

    .section .text.entry, "ax"
    .code32
    .globl _start
_start:
    cld
    movl %ebx, start_info
    movl $(STACKS + 0x1000), %esp
    lgdt gdtr
    movl $CR4_BOOT, %eax
    movl %eax, %cr4
    movl $PML4_A, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx              /* EFER */
    movl $(R_MSR_EFER & ~0x400), %eax       /* LMA is the CPU's to set */
    xorl %edx, %edx
    wrmsr
    movl $CR0_BOOT, %eax
    movl %eax, %cr0
    ljmp $SEL_CS, $long_mode

    .code64
long_mode:
    xorl %r15d, %r15d
    call cpu_setup
    call interrupts_setup
    movl $0x40000000, %ecx              /* Xen writes the hypercall page of this CPU's vendor */
    movl $HYPERCALLS, %eax
    xorl %edx, %edx
    wrmsr
    movb $0xc3, PAGE_EXEC + OFF_EXEC    /* a function that only returns */

    movl $PROGRESS, %edi                /* a host that does not scrub gives used pages */
    movl $MAX_VCPUS, %ecx
    xorl %eax, %eax
    rep stosl

    movl start_info, %ebx
    movq 24(%rbx), %rax                 /* hvm_start_info.cmdline_paddr */
    movq %rax, cmdline
    leaq word_smp(%rip), %rdi
    call has_word
    movl %eax, smp
    leaq word_forever(%rip), %rdi
    call has_word
    movl %eax, forever
    cmpl $0, smp
    je 1f
    call start_others
1:  call run_words
    movl cpus, %eax
2:  pause                               /* the other vCPUs finish too */
    cmpl %eax, finished
    jb 2b
    call report
    leaq word_beat(%rip), %rdi
    call has_word
    orl forever, %eax
    jz 3f
    call beat_start
3:
    sti
    jmp rest

ap_entry:                               /* the others arrive in long mode: VCPUOP_initialise */
    movl %ebx, %r15d
    lgdt gdtr
    call cpu_setup
    call run_words
    sti
rest:
    cmpl $0, forever
    jne 1f
    hlt
    jmp rest
1:  call run_words
    jmp rest

/* Segments with a base and a limit of their own each, and the local APIC in x2APIC mode. */
cpu_setup:
    movl $SEL_SS, %eax
    movl %eax, %ss
    movl $SEL_DS, %eax
    movl %eax, %ds
    movl $SEL_ES, %eax
    movl %eax, %es
    movl $SEL_FS, %eax
    movl %eax, %fs
    movl $SEL_GS, %eax
    movl %eax, %gs
    lidt idtr
    pushq $SEL_CS
    leaq 1f(%rip), %rax
    pushq %rax
    lretq
1:  movl $0x1b, %ecx                    /* IA32_APIC_BASE */
    rdmsr
    orl $0xc00, %eax
    wrmsr
    movl $0x80f, %ecx                   /* spurious vector register: enable */
    movl $0x1ff, %eax
    xorl %edx, %edx
    wrmsr
    ret

/* One pass over the command line; words that name no kind are for boot.S. */
run_words:
    movq cmdline, %rsi
1:  movb (%rsi), %al
    testb %al, %al
    jz 9f
    cmpb $' ', %al
    jne 2f
    incq %rsi
    jmp 1b
2:  leaq kinds(%rip), %rbx
3:  movq (%rbx), %rdi
    testq %rdi, %rdi
    jz 5f
    call same_word
    jz 4f
    addq $16, %rbx
    jmp 3b
4:  pushq %rsi
    call *8(%rbx)
    popq %rsi
5:  movb (%rsi), %al                    /* on to the end of the word */
    testb %al, %al
    jz 9f
    cmpb $' ', %al
    je 1b
    incq %rsi
    jmp 5b
9:  lock incl PROGRESS(,%r15,4)
    cmpl $1, PROGRESS(,%r15,4)
    jne 10f
    lock incl finished
10: ret

/* ZF set if the word at %rsi is the string at %rdi. */
same_word:
    xorl %ecx, %ecx
1:  movb (%rdi,%rcx), %al
    movb (%rsi,%rcx), %dl
    testb %al, %al
    jz 2f
    cmpb %al, %dl
    jne 3f
    incl %ecx
    jmp 1b
2:  testb %dl, %dl
    jz 3f
    cmpb $' ', %dl
3:  ret

/* %eax = 1 if the word at %rdi is anywhere in the command line. */
has_word:
    movq cmdline, %rsi
1:  call same_word
    jz 3f
2:  movb (%rsi), %al
    testb %al, %al
    jz 4f
    incq %rsi
    cmpb $' ', %al
    jne 2b
    jmp 1b
3:  movl $1, %eax
    ret
4:  xorl %eax, %eax
    ret

start_others:                           /* until there is no vCPU of the next number */
    xorl %edi, %edi                     /* VCPUOP_initialise */
    movl cpus, %esi
    movl %esi, context_rbx
    movl %esi, %eax
    shll $12, %eax
    addl $(STACKS + 0x1000), %eax
    movl %eax, context_rsp
    leaq context(%rip), %rdx
    call HYPERCALLS + 24 * 32           /* vcpu_op */
    testq %rax, %rax
    jnz 1f
    movl $1, %edi                       /* VCPUOP_up */
    movl cpus, %esi
    xorl %edx, %edx
    call HYPERCALLS + 24 * 32
    incl cpus
    cmpl $MAX_VCPUS, cpus
    jb start_others
1:  ret

    .data
    .globl gdtr, idtr
    .align 16
gdt:
    .quad 0
    .quad 0
    .quad 0x00cf93000000ffff            /* SEL_SS: flat */
    .quad 0x00af9b000000ffff            /* SEL_CS: 64-bit code */
    .quad 0x00cf93000000ffff            /* SEL_DS: flat */
    .quad 0x0040930000000000 + (ES_BASE << 16) + ES_LIMIT
    .quad 0x00cf93000000ffff            /* SEL_FS: its base is an MSR's */
    .quad 0x00cf93000000ffff            /* SEL_GS */
tss_descriptor:
    .quad 0x0000890000000000 + (TSS << 16) + 103, 0
gdt_end:
    .set GDT_LIMIT, gdt_end - gdt - 1
gdtr: .word GDT_LIMIT
    .quad gdt
idtr: .word 256 * 16 - 1
    .quad IDT

    .align 8
context:                                /* struct vcpu_hvm_context, VCPU_HVM_MODE_64B */
    .long 1, 0
    .quad 0, 0, 0                       /* rax rcx rdx */
context_rbx: .quad 0                    /* the vCPU's number */
context_rsp: .quad 0
    .quad 0, 0, 0                       /* rbp rsi rdi */
    .quad ap_entry, 2, CR0_BOOT, PML4_A, CR4_BOOT, R_MSR_EFER

cmdline: .quad 0
start_info: .long 0
smp: .long 0
forever: .long 0
finished: .long 0
cpus: .long 1
counted: .fill COUNTERS, 4, 0
word_smp: .asciz "smp"
word_forever: .asciz "forever"
word_beat: .asciz "beat"

    .section .tables, "aw"
    .macro top_level
    .quad pdpt + 0x23
    .fill 255, 8, 0
    .quad pdpt + 0x23                   /* everything again at HIGH */
    .fill 255, 8, 0
    .endm
    top_level                           /* PML4_A */
    top_level                           /* PML4_B */
pdpt:
    .quad directory + 0x23
    .fill 511, 8, 0
directory:                              /* 1 GiB in 2 MiB pages, accessed and dirty already */
    .set address, 0
    .rept 512
    .quad address + 0xe3
    .set address, address + 0x200000
    .endr
