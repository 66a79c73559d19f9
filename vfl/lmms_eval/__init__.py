"""Any benchmark of lmms-eval under a plan: the model `vfl` of `lmms-eval --model vfl`."""
