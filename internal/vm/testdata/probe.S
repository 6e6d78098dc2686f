# The guest of the KVM probe: 64-bit code at 0x1000 of 1 MiB of memory that is
# mapped one to one by a large page. It writes the number of each stage that it
# has passed to port 0xf4, 0xff for a wrong result.
	.macro stage n
	mov $\n, %al
	out %al, $0xf4
	.endm

	.code64
start:
	stage 1
	mov %cr3, %rax
	mov %rax, %cr3
	stage 2
	mov $0xc0000082, %ecx		# LSTAR
	lea syscalled(%rip), %rax
	xor %edx, %edx
	wrmsr
	xor %eax, %eax
	rdmsr
	lea syscalled(%rip), %rbx
	cmp %ebx, %eax
	jne fail
	mov $0xc0000081, %ecx		# STAR: kernel CS 8, SS 16
	xor %eax, %eax
	mov $8, %edx
	wrmsr
	mov $0xc0000084, %ecx		# SFMASK
	mov $0x200, %eax
	xor %edx, %edx
	wrmsr
	stage 3
	fninit
	fxsave 0x9000
	movaps 0x9200, %xmm0
	paddd %xmm0, %xmm0
	movd %xmm0, %eax
	cmp $42, %eax
	jne fail
	stage 4
	lgdt 0x5f00
	lidt 0x5f10
	mov $0x28, %eax
	ltr %ax
	stage 5
	xor %r12d, %r12d
	int3
	cmp $1, %r12d
	jne fail
	stage 6
	mov 0x400000, %eax		# not mapped; 7 bytes
	cmp $2, %r12d
	jne fail
	stage 7
	swapgs
	swapgs
	stage 8
	pushq $0x23
	pushq $0xa000
	pushq $2
	pushq $0x1b
	lea user(%rip), %rax
	push %rax
	iretq
user:
	mov $3, %r12d
	syscall
syscalled:
	mov $0x8000, %esp
	cmp $3, %r12d
	jne fail
	stage 9
	mov $1000000, %ecx
1:	dec %ecx
	jnz 1b
	stage 10
	hlt
fail:
	mov $0xff, %al
	out %al, $0xf4
	hlt

	.org 0x180			# vector 3
	mov $1, %r12d
	iretq

	.org 0x1a0			# vector 14
	mov %cr2, %rax
	cmp $0x400000, %rax
	jne fail
	mov $2, %r12d
	add $8, %rsp
	addq $7, (%rsp)
	iretq
