#include "textflag.h"

// x^(n+63) and x^(n-1) modulo x^64+x^4+x^3+x+1, bits reflected: what moves the
// first and the second half of a lane n bits on.
DATA by512<>+0(SB)/8, $0x01b001b1b0000001
DATA by512<>+8(SB)/8, $0xb100010100000001
GLOBL by512<>(SB), RODATA|NOPTR, $16

DATA by128<>+0(SB)/8, $0x6b70000000000001
DATA by128<>+8(SB)/8, $0xf500000000000001
GLOBL by128<>(SB), RODATA|NOPTR, $16

// MOVE moves lane by the constants in X5 and adds what is at next; X6 is used.
#define MOVE(lane, next) \
	MOVOA lane, X6 \
	PCLMULQDQ $0x00, X5, X6 \
	PCLMULQDQ $0x11, X5, lane \
	PXOR X6, lane \
	PXOR next, lane

// func foldBlocks(state uint64, p *byte, blocks int) (lo, hi uint64)
TEXT ·foldBlocks(SB), NOSPLIT, $0-40
	MOVQ state+0(FP), X4
	MOVQ p+8(FP), SI
	MOVQ blocks+16(FP), CX
	MOVOU 0(SI), X0
	MOVOU 16(SI), X1
	MOVOU 32(SI), X2
	MOVOU 48(SI), X3
	PXOR X4, X0
	MOVOU by512<>(SB), X5
	JMP next

block:
	MOVOU 0(SI), X7
	MOVOU 16(SI), X8
	MOVOU 32(SI), X9
	MOVOU 48(SI), X10
	MOVE(X0, X7)
	MOVE(X1, X8)
	MOVE(X2, X9)
	MOVE(X3, X10)

next:
	ADDQ $64, SI
	DECQ CX
	JNZ block

	MOVOU by128<>(SB), X5
	MOVE(X0, X1)
	MOVE(X0, X2)
	MOVE(X0, X3)
	MOVQ X0, lo+24(FP)
	PSRLDQ $8, X0
	MOVQ X0, hi+32(FP)
	RET
