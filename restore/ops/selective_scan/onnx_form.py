"""Floor 2. The scan's recurrence for ONNX, as one Scan over the steps; needs onnxscript."""

# what onnxscript compiles is a small part of Python, with ONNX's types
# pyright: reportMissingImports=false, reportArgumentType=false, reportGeneralTypeIssues=false
# pyright: reportPossiblyUnboundVariable=false, reportAttributeAccessIssue=false
# pyright: reportUnknownParameterType=false

from onnxscript import FLOAT, graph, script
from onnxscript import opset18 as op

ANY = FLOAT[...]  # of any rank; FLOAT alone is a scalar to some versions of onnxscript


@script()
def recurrence(step: ANY, u: ANY, A: ANY, B: ANY, C: ANY) -> ANY:
    """`restore.ops.selective_scan.standard.recurrence`."""
    last = op.Constant(value_ints=[-1])
    row = op.Constant(value_ints=[-2])
    start = op.Mul(op.Unsqueeze(op.Gather(step, 0), last), op.Mul(A, 0.0))

    @graph()
    def advance(state: ANY, step_t: ANY, u_t: ANY, B_t: ANY, C_t: ANY):
        kept = op.Exp(op.Mul(op.Unsqueeze(step_t, last), A))
        added = op.Mul(op.Unsqueeze(op.Mul(step_t, u_t), last), op.Unsqueeze(B_t, row))
        now = op.Add(op.Mul(kept, state), added)
        found = op.Squeeze(op.MatMul(now, op.Unsqueeze(C_t, last)), last)
        return now, found

    _, y = op.Scan(start, step, u, B, C, body=advance, num_scan_inputs=4)
    return y
