"""Makes peer-cases.tar.zst: cases in ONNX's own layout whose expected values come from other implementations.

`ml` and `microsoft` hold operators of ai.onnx.ml and com.microsoft with the results of ONNX Runtime, `image` hold files
written by Pillow with the pixels it reads. What ONNX Runtime has on other devices only is computed with numpy. Where ONNX Runtime contradicts the standard (the labels of a classifier with votes for
both of two classes; PROBIT of one score) there is no case; of a cache, only the part in use is compared.

    python peer-cases.py        # needs onnx, onnxruntime, numpy, pillow, zstandard
"""

import io
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh
from PIL import Image

ROOT = Path(tempfile.mkdtemp()) / "peer-cases"
SEEN = {}


def write(folder, tag, model, inputs, outputs, rtol=1e-3, atol=1e-5):
    name = "test_" + "".join(c if c.isalnum() else "_" for c in tag).lower()
    SEEN[name] = SEEN.get(name, 0) + 1
    if SEEN[name] > 1:
        name += f"_{SEEN[name]}"
    d = ROOT / folder / name / "test_data_set_0"
    d.mkdir(parents=True)
    (d.parent / "model.onnx").write_bytes(model.SerializeToString())
    (d.parent / "tolerance.json").write_text(json.dumps({"rtol": rtol, "atol": atol}))
    for i, x in enumerate(inputs):
        (d / f"input_{i}.pb").write_bytes(nh.from_array(x).SerializeToString())
    for i, y in enumerate(outputs):
        (d / f"output_{i}.pb").write_bytes(nh.from_array(y).SerializeToString())


def node_model(op, inputs, attrs, outs=1, domain="", opset=None, ver=None):
    wanted = [True] * outs if isinstance(outs, int) else outs
    n = h.make_node(
        op,
        [k if v is not None else "" for k, v in inputs.items()],
        [f"y{i}" if w else "" for i, w in enumerate(wanted)],
        domain=domain,
        **attrs,
    )
    given = {k: v for k, v in inputs.items() if v is not None}
    vi = [h.make_tensor_value_info(k, h.np_dtype_to_tensor_dtype(v.dtype), list(v.shape)) for k, v in given.items()]
    vo = [h.make_value_info(o, onnx.TypeProto()) for o in n.output if o]
    ops = [h.make_opsetid("", opset or 21)] + ([h.make_opsetid(domain, ver or 1)] if domain else [])
    return h.make_model(h.make_graph([n], "g", vi, vo), opset_imports=ops, ir_version=10)


def session(model):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def check(tag, op, inputs, attrs, outs=1, domain="", ver=None, opset=None, rtol=1e-3, atol=1e-5):
    m = node_model(op, inputs, attrs, outs, domain, opset, ver)
    feeds = {k: v for k, v in inputs.items() if v is not None}
    y = session(m).run(None, feeds)
    for o, v in zip(m.graph.output, y):
        o.CopyFrom(h.make_tensor_value_info(o.name, h.np_dtype_to_tensor_dtype(v.dtype), list(v.shape)))
    write("ml" if domain == "ai.onnx.ml" else "microsoft", tag, m, list(feeds.values()), y, rtol, atol)


rng = np.random.default_rng(1)

ML='ai.onnx.ml'
X=rng.standard_normal((7,5)).astype(np.float32)
for post in ['NONE','LOGISTIC','SOFTMAX','SOFTMAX_ZERO']:
  for k,icpt in [(3,3),(2,2),(2,1)]:
    co=rng.standard_normal((icpt,5)).astype(np.float32)
    check(f'LinearClassifier {post} {k} labels {icpt} scores','LinearClassifier',{'x':X},dict(coefficients=co.ravel().tolist(),intercepts=rng.standard_normal(icpt).tolist(),classlabels_ints=list(range(10,10+k)),post_transform=post,multi_class=0),2,ML,3)
  check(f'LinearRegressor {post}','LinearRegressor',{'x':X},dict(coefficients=rng.standard_normal(10).tolist(),intercepts=[.1,.2],targets=2,post_transform=post),1,ML,3)
for norm in ['MAX','L1','L2']: check('Normalizer '+norm,'Normalizer',{'x':X},dict(norm=norm),1,ML,3)
check('Scaler','Scaler',{'x':X},dict(offset=[1.,2,3,4,5],scale=[.5,.25,1,2,3]),1,ML,3)
check('Scaler i64','Scaler',{'x':np.arange(10).reshape(2,5)},dict(offset=[1.],scale=[.5]),1,ML,3)
Xn=X.copy(); Xn[::2,1]=np.nan
check('Imputer','Imputer',{'x':Xn},dict(imputed_value_floats=[1.,2,3,4,5],replaced_value_float=float('nan')),1,ML,3)
check('OneHot','OneHotEncoder',{'x':np.array([1,3,9],np.int64)},dict(cats_int64s=[1,2,3],zeros=1),1,ML,3)
check('FeatureVectorizer','FeatureVectorizer',{'a':X,'b':X[:,:2].copy()},dict(inputdimensions=[5,2]),1,ML,3)
check('Binarizer','Binarizer',{'x':X},dict(threshold=.1),1,ML,3)
check('ArrayFeatureExtractor','ArrayFeatureExtractor',{'x':X,'i':np.array([0,3],np.int64)},{},1,ML,3)
# trees
def tree(kind,classes,seed,posonly=False,ids=None,depth=3,trees=4,post='NONE',agg=None,base=None,f64=False):
    r=np.random.default_rng(seed)
    d=dict(nodes_treeids=[],nodes_nodeids=[],nodes_featureids=[],nodes_values=[],nodes_modes=[],nodes_truenodeids=[],nodes_falsenodeids=[],nodes_missing_value_tracks_true=[])
    p='class' if kind=='C' else 'target'
    v={p+'_treeids':[],p+'_nodeids':[],p+'_ids':[],p+'_weights':[]}
    for t in range(trees):
        n=2**(depth+1)-1
        for i in range(n):
            leaf=i>=2**depth-1
            d['nodes_treeids'].append(t); d['nodes_nodeids'].append(i); d['nodes_featureids'].append(0 if leaf else int(r.integers(0,5)))
            d['nodes_values'].append(0. if leaf else float(np.float32(r.standard_normal()*.7))); d['nodes_modes'].append('LEAF' if leaf else ['BRANCH_LEQ','BRANCH_LT','BRANCH_GTE','BRANCH_GT'][int(r.integers(0,4))])
            d['nodes_truenodeids'].append(0 if leaf else 2*i+1); d['nodes_falsenodeids'].append(0 if leaf else 2*i+2); d['nodes_missing_value_tracks_true'].append(int(r.integers(0,2)))
            if leaf:
                for c in (ids if ids is not None else range(classes)):
                    v[p+'_treeids'].append(t); v[p+'_nodeids'].append(i); v[p+'_ids'].append(c); w=float(np.float32(r.standard_normal())); v[p+'_weights'].append(abs(w)/trees if posonly else w)
    d.update(v); d['post_transform']=post
    if base: d['base_values']=base
    if kind=='C': d['classlabels_int64s']=list(range(20,20+classes))
    else:
        d['n_targets']=classes
        if agg: d['aggregate_function']=agg
    return d
Xt=rng.standard_normal((40,5)).astype(np.float32); Xt[::7,2]=np.nan
for post in ['NONE','LOGISTIC','SOFTMAX','SOFTMAX_ZERO','PROBIT']:
    po=post=='PROBIT'
    check(f'TreeReg {post}','TreeEnsembleRegressor',{'x':Xt},tree('R',1 if po else 2,3,post=post,posonly=po),1,ML,3,rtol=1e-3)
    check(f'TreeCls3 {post}','TreeEnsembleClassifier',{'x':Xt},tree('C',3,4,post=post,posonly=po),2,ML,3,rtol=1e-3)
    po or check(f'TreeCls2 lone {post}','TreeEnsembleClassifier',{'x':Xt},tree('C',2,5,ids=[0],post=post),2,ML,3,rtol=1e-3)
    po or check(f'TreeCls2 lone1 {post}','TreeEnsembleClassifier',{'x':Xt},tree('C',2,5,ids=[1],post=post),2,ML,3,rtol=1e-3)
    po or check(f'TreeCls2 lone positive {post}','TreeEnsembleClassifier',{'x':Xt},tree('C',2,6,ids=[0],posonly=True,post=post),2,ML,3,rtol=1e-3)
for agg in ['SUM','AVERAGE','MIN','MAX']: check(f'TreeReg {agg}','TreeEnsembleRegressor',{'x':Xt},tree('R',2,8,agg=agg,base=[.5,-.25]),1,ML,3)
check('TreeReg double','TreeEnsembleRegressor',{'x':Xt.astype(np.float64)},tree('R',2,8),1,ML,3)
check('TreeCls base lone','TreeEnsembleClassifier',{'x':Xt},tree('C',2,5,ids=[0],base=[.3]),2,ML,3)
check('TreeCls base','TreeEnsembleClassifier',{'x':Xt},tree('C',3,5,base=[.3,-.2,.1]),2,ML,3)
# svm
for kt in ['LINEAR','POLY','RBF','SIGMOID']:
    kp=[.3,.1,2.]
    check('SVMReg '+kt,'SVMRegressor',{'x':X},dict(kernel_type=kt,kernel_params=kp,n_supports=4,coefficients=rng.standard_normal(4).tolist(),support_vectors=rng.standard_normal(20).tolist(),rho=[.2]),1,ML,3)
    for post in ['NONE','LOGISTIC']:
      for prob in [False,True]:
        for k in [2,3]:
            vpc=[2,3,2][:k]; n=sum(vpc); pairs=k*(k-1)//2
            a=dict(kernel_type=kt,kernel_params=kp,vectors_per_class=vpc,coefficients=rng.standard_normal((k-1)*n).tolist(),support_vectors=rng.standard_normal(n*5).tolist(),rho=rng.standard_normal(pairs).tolist(),classlabels_ints=list(range(k)),post_transform=post)
            if prob: a.update(prob_a=(-rng.random(pairs)).tolist(),prob_b=rng.random(pairs).tolist())
            check(f'SVMCls {kt} {post} {k} prob {prob}','SVMClassifier',{'x':X},a,2,ML,3,rtol=1e-3,atol=1e-4)
check('SVMReg liblinear one class','SVMRegressor',{'x':X},dict(kernel_type='LINEAR',kernel_params=[0.,0.,0.],n_supports=0,one_class=1,coefficients=rng.standard_normal(5).tolist(),rho=[.2]),1,ML,3)
check('SVMCls liblinear','SVMClassifier',{'x':X},dict(kernel_type='LINEAR',kernel_params=[0.,0.,0.],coefficients=rng.standard_normal(15).tolist(),rho=[.2],classlabels_ints=[0,1,2]),2,ML,3)
check('LabelEncoder','LabelEncoder',{'x':np.array([1,2,9],np.int64)},dict(keys_int64s=[1,2],values_floats=[.5,1.5],default_float=7.),1,ML,4)

rng=np.random.default_rng(2); MS='com.microsoft'
f=lambda *s: rng.standard_normal(s).astype(np.float32)
for ta in (0,1):
  for tb in (0,1):
    check(f'FusedMatMul {ta}{tb}','FusedMatMul',{'a':f(2,4,3) if ta else f(2,3,4),'b':f(2,5,4) if tb else f(2,4,5)},dict(transA=ta,transB=tb,alpha=.5),1,MS)
check('Gelu','Gelu',{'x':f(3,4)},{},1,MS)
check('FastGelu','FastGelu',{'x':f(3,4),'b':f(4)},{},1,MS)
check('FastGelu nb','FastGelu',{'x':f(3,4)},{},1,MS)
check('BiasGelu','BiasGelu',{'x':f(3,4),'b':f(4)},{},1,MS)
check('QuickGelu','QuickGelu',{'x':f(3,4)},dict(alpha=1.3),1,MS)
check('FusedGemm','FusedGemm',{'a':f(3,4),'b':f(4,5),'c':f(5)},dict(activation='LeakyRelu',activation_alpha=.1,alpha=1.0),1,MS)
check('FusedConv','FusedConv',{'x':f(1,3,6,6),'w':f(4,3,3,3),'b':f(4)},dict(activation='Relu',kernel_shape=[3,3]),1,MS)
check('FusedConv z','FusedConv',{'x':f(1,3,6,6),'w':f(4,3,3,3),'b':f(4),'z':f(1,4,4,4)},dict(activation='Relu',kernel_shape=[3,3]),1,MS)
check('FusedConv clip','FusedConv',{'x':f(1,3,6,6),'w':f(4,3,3,3)},dict(activation='Clip',activation_params=[-.5,.7],kernel_shape=[3,3]),1,MS)
check('SimplifiedLN','SimplifiedLayerNormalization',{'x':f(2,3,8),'s':f(8)},dict(axis=-1,epsilon=1e-5),1,'',opset=17)
check('SkipLN','SkipLayerNormalization',{'x':f(2,3,8),'k':f(2,3,8),'g':f(8),'b':f(8),'bias':f(8)},dict(epsilon=1e-5),[1,0,0,1],MS)
check('SkipSLN','SkipSimplifiedLayerNormalization',{'x':f(2,3,8),'k':f(2,3,8),'g':f(8),'bias':f(8)},dict(epsilon=1e-5),[1,0,0,1],MS)
check('EmbedLN','EmbedLayerNormalization',{'ids':rng.integers(0,9,(2,3)).astype(np.int32),'seg':rng.integers(0,2,(2,3)).astype(np.int32),'w':f(9,8),'p':f(5,8),'s':f(2,8),'g':f(8),'b':f(8),'m':np.array([[1,1,0],[1,1,1]],np.int32)},dict(epsilon=1e-5),2,MS)
check('QLinearAdd','QLinearAdd',{'a':rng.integers(0,255,(3,4)).astype(np.uint8),'as':np.array(.1,np.float32),'az':np.array(120,np.uint8),'b':rng.integers(0,255,(4,)).astype(np.uint8),'bs':np.array(.05,np.float32),'bz':np.array(100,np.uint8),'cs':np.array(.2,np.float32),'cz':np.array(128,np.uint8)},{},1,MS)
check('QLinearMul','QLinearMul',{'a':rng.integers(0,255,(3,4)).astype(np.uint8),'as':np.array(.1,np.float32),'az':np.array(120,np.uint8),'b':rng.integers(0,255,(4,)).astype(np.uint8),'bs':np.array(.05,np.float32),'bz':np.array(100,np.uint8),'cs':np.array(.5,np.float32),'cz':np.array(128,np.uint8)},{},1,MS)
for o in ('QLinearSigmoid','QLinearLeakyRelu'):
  check(o,o,{'a':rng.integers(0,255,(3,4)).astype(np.uint8),'as':np.array(.1,np.float32),'az':np.array(120,np.uint8),'cs':np.array(.05,np.float32),'cz':np.array(0,np.uint8)},{},1,MS)
check('QLinearSoftmax','QLinearSoftmax',{'a':rng.integers(0,255,(3,4)).astype(np.uint8),'as':np.array(.1,np.float32),'az':np.array(120,np.uint8),'cs':np.array(1/256,np.float32),'cz':np.array(0,np.uint8)},dict(axis=-1,opset=13),1,MS)
check('QLinearGAP','QLinearGlobalAveragePool',{'a':rng.integers(0,255,(1,3,4,4)).astype(np.uint8),'as':np.array(.1,np.float32),'az':np.array(120,np.uint8),'cs':np.array(.05,np.float32),'cz':np.array(0,np.uint8)},{},1,MS)
check('QLinearAP','QLinearAveragePool',{'a':rng.integers(0,255,(1,3,4,4)).astype(np.uint8),'as':np.array(.1,np.float32),'az':np.array(120,np.uint8),'cs':np.array(.05,np.float32),'cz':np.array(0,np.uint8)},dict(kernel_shape=[2,2]),1,MS)
check('QLinearConcat','QLinearConcat',{'ys':np.array(.1,np.float32),'yz':np.array(3,np.uint8),'a':rng.integers(0,255,(1,3)).astype(np.uint8),'as':np.array(.1,np.float32),'az':np.array(12,np.uint8),'b':rng.integers(0,255,(1,2)).astype(np.uint8),'bs':np.array(.2,np.float32),'bz':np.array(0,np.uint8)},dict(axis=1),1,MS)
check('DynQMatMul','DynamicQuantizeMatMul',{'a':f(3,4),'b':rng.integers(0,255,(4,5)).astype(np.uint8),'bs':np.array([.1],np.float32),'bz':np.array([7],np.uint8),'bias':f(5)},{},1,MS)
check('MMI2F','MatMulIntegerToFloat',{'a':rng.integers(0,255,(3,4)).astype(np.uint8),'b':rng.integers(0,255,(4,5)).astype(np.uint8),'as':np.array([.1],np.float32),'bs':np.array([.2],np.float32),'az':np.array([3],np.uint8),'bz':np.array([7],np.uint8),'bias':f(5)},{},1,MS)
check('NhwcMaxPool','NhwcMaxPool',{'x':rng.integers(0,255,(1,6,6,2)).astype(np.uint8)},dict(kernel_shape=[2,2],strides=[2,2]),1,MS)
check('QuantizeLinear','QuantizeLinear',{'x':f(3,4),'s':np.array(.1,np.float32),'z':np.array(100,np.uint16)},{},1,MS)
# MatMulNBits with constants
def nbits(bits,n,k,block,zp,bias,f16=False):
    nb=(k+block-1)//block; blob=block*bits//8
    b=rng.integers(0,256,(n,nb,blob)).astype(np.uint8); s=(rng.random(n*nb)*.1).astype(np.float32)
    ins={'a':f(2,3,k)}; names=['a','b','s']; inits=[onnx.numpy_helper.from_array(b,'b'),onnx.numpy_helper.from_array(s,'s')]
    if zp: inits.append(onnx.numpy_helper.from_array(rng.integers(0,256,n*((nb*bits+7)//8)).astype(np.uint8),'z')); names.append('z')
    if bias:
        while len(names)<5: names.append('')
        inits.append(onnx.numpy_helper.from_array(f(n),'bias')); names.append('bias')
    nd=h.make_node('MatMulNBits',names,['y'],domain=MS,N=n,K=k,block_size=block,bits=bits)
    m=h.make_model(h.make_graph([nd],'g',[h.make_tensor_value_info('a',T.FLOAT,[2,3,k])],[h.make_tensor_value_info('y',T.FLOAT,[2,3,n])],inits),opset_imports=[h.make_opsetid('',21),h.make_opsetid(MS,1)],ir_version=10)
    write("microsoft", f"MatMulNBits {bits} {n} {k} {block} {zp} {bias}", m, list(ins.values()), session(m).run(None, ins))
nbits(4,6,32,16,True,False); nbits(4,5,48,16,True,False); nbits(4,5,40,16,False,False); nbits(4,5,32,32,False,True); nbits(8,5,64,32,True,False)
# attention
B,S,N,D=2,3,4,8
for past in (0,1):
  for msk in (0,1):
    ins={'q':f(B,S,N*D),'k':f(B,S,N*D),'v':f(B,S,N*D),'bias':f(3*N*D),'m':(np.array([[1]*(S+2*past),[1]*(S+2*past-1)+[0]],np.int32) if msk else None),'ab':None,'pk':f(B,N,2,D) if past else None,'pv':f(B,N,2,D) if past else None}
    check(f'MHA past {past} mask {msk}','MultiHeadAttention',ins,dict(num_heads=N),3 if past else 1,MS)
check('MHA unidirectional','MultiHeadAttention',{'q':f(B,S,N*D),'k':f(B,S,N*D),'v':f(B,S,N*D)},dict(num_heads=N,unidirectional=1),1,MS)
for uni in (0,1):
    check(f'Attention {uni}','Attention',{'x':f(B,S,16),'w':f(16,3*N*D),'b':f(3*N*D),'m':np.array([[1,1,1],[1,1,0]],np.int32)},dict(num_heads=N,unidirectional=uni),1,MS)
    check(f'Attention past {uni}','Attention',{'x':f(B,S,16),'w':f(16,3*N*D),'b':f(3*N*D),'m':None,'p':f(2,B,N,2,D)},dict(num_heads=N,unidirectional=uni),2,MS)
check('Rotary','RotaryEmbedding',{'x':f(B,N,S,D),'p':rng.integers(0,9,(B,S)),'c':f(10,D//2),'s':f(10,D//2)},{},1,MS)
check('Rotary 1','RotaryEmbedding',{'x':f(B,S,N*D),'p':np.array([4]),'c':f(10,D//2),'s':f(10,D//2)},dict(num_heads=N),1,MS)
G=2; D=16
def gqa(tag,S,P,lens,packed=False,rot=1,win=-1,share=None,inter=0):
    c=rng.random((64,D//2)).astype(np.float32); s=rng.random((64,D//2)).astype(np.float32)
    Bn=len(lens); buf=share if share is not None else P
    ins={'q':f(Bn,S,(N+2*G)*D) if packed else f(Bn,S,N*D),'k':None if packed else f(Bn,S,G*D),'v':None if packed else f(Bn,S,G*D),'pk':f(Bn,G,buf,D),'pv':f(Bn,G,buf,D),'l':np.array([x-1 for x in lens],np.int32),'t':np.array(max(lens),np.int32),'c':c if rot else None,'s':s if rot else None}
    a=dict(num_heads=N,kv_num_heads=G,do_rotary=rot,rotary_interleaved=inter)
    if win>0: a['local_window_size']=win
    check('GQA '+tag,'GroupQueryAttention',ins,a,3,MS)
gqa('prompt',5,0,[5,5]); gqa('decode',1,4,[5,5]); gqa('decode packed interleaved',1,4,[5,5],True,1,-1,None,1); gqa('decode window',1,9,[10,10],win=3); gqa('no rotary',1,4,[5,5],rot=0); gqa('prompt window',6,0,[6,6],win=2)

for size in [(1, 1), (2, 3), (7, 9), (17, 33), (40, 25)]:
    noise = rng.integers(0, 30, (size[1], size[0], 3))
    slope = np.add.outer(np.linspace(0, 200, size[1]), np.linspace(0, 55, size[0]))[..., None]
    pixels = np.clip(slope + noise, 0, 255).astype(np.uint8)
    kinds = [("JPEG", m, dict(quality=q, subsampling=s, progressive=p)) for m in ("RGB",) for q in (30, 95) for s in (0, 1, 2) for p in (False, True)]
    kinds += [("JPEG", m, dict(quality=80, progressive=p)) for m in ("L", "CMYK") for p in (False, True)]
    kinds += [(f, "RGB", {}) for f in ("PNG", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000")]
    for file_format, mode, options in kinds:
        file = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(file, file_format, **options)
        want = np.array(Image.open(io.BytesIO(file.getvalue())).convert("RGB"))
        data = np.frombuffer(file.getvalue(), np.uint8)
        m = node_model("ImageDecoder", {"x": data}, {})
        m.graph.output[0].CopyFrom(h.make_tensor_value_info("y0", T.UINT8, list(want.shape)))
        label = f"{file_format} {mode} {size[0]}x{size[1]} " + " ".join(f"{k} {int(v)}" for k, v in options.items())
        write("image", label, m, [data], [want])

# Later ones have a generator of their own: those before keep their values.
rng=np.random.default_rng(3)
u8=lambda *s: rng.integers(0,256,s).astype(np.uint8)
i8=lambda *s: rng.integers(-128,128,s).astype(np.int8)
F=lambda v: np.array(v,np.float32)
U=lambda v: np.array(v,np.uint8)
nchw=lambda x: np.moveaxis(x,-1,1)
nhwc=lambda x: np.moveaxis(x,1,-1)


def computed(tag,op,inputs,attrs,*expected,rtol=1e-3,atol=1e-5):
    """A case with the values of numpy, for operators that ONNX Runtime has on other devices only."""
    m=node_model(op,inputs,attrs,len(expected),MS)
    for o,v in zip(m.graph.output,expected): o.CopyFrom(h.make_tensor_value_info(o.name,h.np_dtype_to_tensor_dtype(v.dtype),list(v.shape)))
    write("microsoft",tag,m,[v for v in inputs.values() if v is not None],list(expected),rtol,atol)


for last in (0,1):
    x=u8(1,6,5,4) if last else u8(1,4,6,5)
    check(f'QLinearConv last {last}','QLinearConv',{'x':x,'xs':F(.05),'xz':U(120),'w':u8(3,4,3,3),'ws':F(.02),'wz':U(128),'ys':F(.9),'yz':U(100),'b':rng.integers(-500,500,3).astype(np.int32)},dict(channels_last=last,kernel_shape=[3,3],pads=[1,0,1,0]),1,MS)
    check(f'QLinearAveragePool last {last}','QLinearAveragePool',{'x':x,'xs':F(.05),'xz':U(120),'ys':F(.037),'yz':U(100)},dict(channels_last=last,kernel_shape=[2,2],strides=[2,1]),1,MS)
    check(f'QLinearGlobalAveragePool last {last}','QLinearGlobalAveragePool',{'x':x,'xs':F(.05),'xz':U(120),'ys':F(.01),'yz':U(100)},dict(channels_last=last),1,MS)
check('QLinearSoftmax 12','QLinearSoftmax',{'a':u8(2,3,4),'as':F(.02),'az':U(120),'cs':F(1/256),'cz':U(0)},dict(axis=1,opset=12),1,MS)
check('QLinearWhere','QLinearWhere',{'c':rng.random((3,4))<.5,'x':u8(3,4),'xs':F(.1),'xz':U(100),'y':u8(4),'ys':F(.2),'yz':U(120),'zs':F(.15),'zz':U(90)},{},1,MS)
for ta in (0,1):
  for out in (0,1):
    check(f'QGemm {ta} {out}','QGemm',{'a':u8(4,3) if ta else u8(3,4),'as':F(.05),'az':U(100),'b':i8(4,5) if ta else i8(5,4),'bs':F([.1,.2,.3,.4,.5]) if out else F(.1),'bz':np.zeros(5,np.int8) if out else np.array(3,np.int8),'c':rng.integers(-900,900,5).astype(np.int32),**({'ys':F(2.),'yz':U(128)} if out else {})},dict(transA=ta,transB=1-ta,alpha=1.5),1,MS)
for past in (0,1):
    check(f'QAttention {past}','QAttention',{'x':u8(2,3,16),'w':i8(16,96),'b':f(96),'xs':F(.01),'ws':F(.005),'m':None if past else np.array([[1,1,1],[1,1,0]],np.int32),'xz':U(120),'wz':np.array(0,np.int8),**({'p':f(2,2,4,2,8)} if past else {})},dict(num_heads=4,unidirectional=past),2 if past else 1,MS)
for metric in ('euclidean','sqeuclidean'): check('CDist '+metric,'CDist',{'a':f(3,4),'b':f(5,4)},dict(metric=metric),1,MS)
check('Pad','Pad',{'x':f(2,3),'p':np.array([1,0,0,2],np.int64),'v':F([.5])},dict(mode='constant'),1,MS)
for mode in ('bilinear','nearest','bicubic'): check('GridSample '+mode,'GridSample',{'x':f(1,2,4,5),'g':(rng.random((1,3,3,2))*2-1).astype(np.float32)},dict(mode=mode),1,MS)


def block_gather(tag,data,scales,zeros,attrs):
    inits=[nh.from_array(data,'d') if isinstance(data,np.ndarray) else data,nh.from_array(scales,'s')]+([] if zeros is None else [nh.from_array(zeros,'z') if isinstance(zeros,np.ndarray) else zeros])
    n=h.make_node('GatherBlockQuantized',['d','i','s']+([] if zeros is None else ['z']),['y'],domain=MS,**attrs)
    i=np.array([[3,0],[1,1]],np.int64)
    m=h.make_model(h.make_graph([n],'g',[h.make_tensor_value_info('i',T.INT64,[2,2])],[h.make_tensor_value_info('y',T.FLOAT,None)],inits),opset_imports=[h.make_opsetid('',21),h.make_opsetid(MS,1)],ir_version=10)
    write("microsoft","GatherBlockQuantized "+tag,m,[i],session(m).run(None,{'i':i}))


nibbles=lambda name,kind,*s: h.make_tensor(name,kind,s,rng.integers(0 if kind==T.UINT4 else -8,16 if kind==T.UINT4 else 8,s).ravel().tolist())
block_gather('uint4',nibbles('d',T.UINT4,4,48),np.abs(f(4,3)),nibbles('z',T.UINT4,4,3),dict(block_size=16,quantize_axis=1))
block_gather('int4',nibbles('d',T.INT4,4,32),np.abs(f(4,2)),None,dict(block_size=16,quantize_axis=1))
block_gather('bytes of two',u8(4,24),np.abs(f(4,3)),u8(4,2),dict(block_size=16,quantize_axis=-1,bits=4))
block_gather('bytes of two, no zero',u8(4,24),np.abs(f(4,3)),None,dict(block_size=16,quantize_axis=1,bits=4))
block_gather('bytes',u8(4,48),np.abs(f(4,3)),u8(4,3),dict(block_size=16,quantize_axis=1,bits=8))

x,w,b=f(1,6,5,4),f(3,4,3,3),f(3)
windows=np.lib.stride_tricks.sliding_window_view(nchw(x),(3,3),(2,3))
computed('NhwcConv','NhwcConv',{'x':x,'w':w,'b':b},dict(kernel_shape=[3,3]),nhwc(np.einsum('nchwij,ocij->nohw',windows,w)+b[None,:,None,None]).astype(np.float32))
tanh_gelu=lambda x: .5*x*(1+np.tanh(np.sqrt(2/np.pi)*(x+.044715*x**3)))
a,b=f(2,3,4),f(4,5)
computed('GemmFastGelu','GemmFastGelu',{'a':a,'b':b,'c':(bias:=f(5))},{},tanh_gelu((a@b+bias).astype(np.float64)).astype(np.float32))


def softmax_from(x,axis):
    flat=x.reshape(int(np.prod(x.shape[:axis])),-1).astype(np.float64)
    e=np.exp(flat-flat.max(1,keepdims=True))
    return (e/e.sum(1,keepdims=True)).reshape(x.shape).astype(np.float32)


x=f(2,4,3,5)
computed('BiasSoftmax last','BiasSoftmax',{'x':x,'b':(bias:=f(2,1,1,5))},dict(axis=3,is_inner_broadcast=1),softmax_from(x+bias,3))
computed('BiasSoftmax two','BiasSoftmax',{'x':x,'b':(bias:=f(1,1,3,5))},dict(axis=2,is_inner_broadcast=0),softmax_from(x+bias,2))
x=u8(2,3,4)
mean=((x.astype(np.float64)-100)*.05).mean((0,2),keepdims=True)
computed('QLinearReduceMean','QLinearReduceMean',{'x':x,'xs':F(.05),'xz':U(100),'ys':F(.02),'yz':U(128)},dict(axes=[0,2],keepdims=1),np.clip(np.rint(mean/.02)+128,0,255).astype(np.uint8))


def group_norm(x,gamma,beta,groups,silu):
    n,ch=x.shape[:2]
    g=x.reshape(n,groups,-1).astype(np.float64)
    g=(g-g.mean(2,keepdims=True))/np.sqrt(g.var(2,keepdims=True)+1e-5)
    y=g.reshape(x.shape)*gamma[:,None,None]+beta[:,None,None]
    return (y/(1+np.exp(-y)) if silu else y).astype(np.float32)


for last in (0,1):
  for silu in (0,1):
    x,gamma,beta=f(2,6,3,5),f(6),f(6)
    put=nhwc if last else (lambda v: v)
    attrs=dict(groups=3,activation=silu,channels_last=last)
    computed(f'GroupNorm {last} {silu}','GroupNorm',{'x':put(x).copy(),'g':gamma,'b':beta},attrs,put(group_norm(x,gamma,beta,3,silu)).copy())
    if last:
        skip,bias=f(2,6),f(6)
        total=x+skip[:,:,None,None]+bias[:,None,None]
        computed(f'SkipGroupNorm {silu}','SkipGroupNorm',{'x':put(x).copy(),'g':gamma,'b':beta,'s':skip,'bias':bias},attrs,put(group_norm(total,gamma,beta,3,silu)).copy(),put(total).copy())
half=f(1,4,2,2).astype(np.float16)
computed('GroupNorm half','GroupNorm',{'x':half,'g':(g:=f(4)),'b':(b:=f(4))},dict(groups=2,activation=1,channels_last=0),group_norm(half.astype(np.float32),g,b,2,1).astype(np.float16))

archive = io.BytesIO()
with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
    for path in sorted(ROOT.rglob("*")):
        if path.is_file():
            info = tarfile.TarInfo(str(path.relative_to(ROOT.parent)))
            info.size = path.stat().st_size
            tar.addfile(info, io.BytesIO(path.read_bytes()))
out = Path(__file__).with_name("peer-cases.tar.zst")
subprocess.run(["zstd", "-19", "-q", "-f", "-o", out], input=archive.getvalue(), check=True)
print(len(list(ROOT.rglob("model.onnx"))), "cases,", out.stat().st_size, "bytes")
shutil.rmtree(ROOT.parent)
