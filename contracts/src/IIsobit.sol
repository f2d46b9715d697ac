// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.20;

/// @title Isobit's ledger: models, nodes, jobs, escrow and settlement.
/// @notice It is at 0x0000000000000000000000000000000000150b17 on every Isobit chain. Amounts are in base units: 1 ISO = 10^18,
/// the chain's native coin. A call that the rules refuse reverts with `Error(string)`, which says why and what to do.
/// @dev A precompile: DELEGATECALL and CALLCODE are refused. Inference never runs inside a block; nodes run it and the
/// ledger compares what they commit to.
interface IIsobit {
    /// @notice A model is registered. `model` is its content address, the same for everybody who publishes it.
    event Published(bytes32 indexed model, address indexed owner, string name);
    /// @notice A model's manifest is on the ledger.
    event Described(bytes32 indexed model);
    /// @notice A node joined with a stake.
    event Joined(address indexed node, uint256 stake);
    /// @notice A validator joined; its stake weighs in the votes on the next block.
    event ValidatorJoined(address indexed validator, uint256 stake);
    /// @notice A validator contradicted itself at a height: it lost a part of its stake, and its place. `accuser` got a share.
    event Equivocated(address indexed validator, uint64 height, uint256 amount, address indexed accuser);
    /// @notice A node will not be drawn any more; its stake can be withdrawn from `until`, in seconds since 1970.
    event Left(address indexed node, uint64 until);
    /// @notice A node took its stake back.
    event Withdrawn(address indexed node, uint256 stake);
    /// @notice A job is posted and its fee in escrow. `tensors` are the inputs, if they came with the call.
    event Posted(bytes32 indexed job, address indexed requester, bytes32 indexed model, bytes32 inputs, bytes tensors);
    /// @notice A set of tensors is on the ledger.
    event Provided(bytes32 indexed root);
    /// @notice Nodes were drawn; `round` is 1 for the escalation.
    event Assigned(bytes32 indexed job, uint8 round, address[] nodes);
    /// @notice A node committed to its receipt.
    event Committed(bytes32 indexed job, address indexed node);
    /// @notice Commitments are closed; nodes reveal.
    event Opened(bytes32 indexed job);
    /// @notice A node revealed: root of the outputs, or a failure's code, and the metered cost.
    event Revealed(bytes32 indexed job, address indexed node, bytes32 outputs, uint16 failure, uint64 cost);
    /// @notice A node lost stake: all of it if it answered something else than the majority, a part if it was silent.
    event Penalised(bytes32 indexed job, address indexed node, uint256 amount, bool slashed);
    /// @notice A job was settled: what nodes and the model's owner got, and what the requester got back.
    event Settled(bytes32 indexed job, uint256 paid, uint256 returned);
    /// @notice A job ended without agreement; the escrow went back.
    event Refunded(bytes32 indexed job, uint256 returned);

    /// @notice What a validator signs when it votes on blocks.
    /// @param kind 0 prevote, 1 precommit, 2 proposal
    /// @param polRound a proposal's: the round in which the block had a majority of prevotes; -1 for none, and for votes
    /// @param value the block's hash; zero for a vote for none
    struct Ballot {
        uint8 kind;
        uint64 height;
        int64 round;
        int64 polRound;
        bytes32 value;
        address validator;
    }

    /// @notice How a job stands. `settled` or `refunded` once it is over.
    /// @param outputs root of the outputs; zero for a failure
    /// @param failure the agreed failure's code; 0 for none
    /// @param cost metered cost in units
    /// @param paid what it cost the requester in all
    /// @param tensors the outputs themselves, if somebody has provided them; see `provide`
    struct Answer {
        bool settled;
        bool refunded;
        bytes32 outputs;
        uint16 failure;
        uint64 cost;
        uint256 paid;
        bytes tensors;
    }

    /// @notice Registers a model under its content address and a name. The name is the first publisher's, who can give it to later models.
    /// @param unitFee what the caller gets for a unit of metered cost of each settled job
    function publish(bytes32 model, string calldata name, string calldata uri, uint256 unitFee) external;

    /// @notice Becomes a node with the value sent as stake.
    function join(string calldata endpoint) external payable;

    /// @notice Becomes a validator with the value sent as stake: it votes on blocks, and is not drawn for jobs.
    function validate(string calldata endpoint) external payable;

    /// @notice Shows that a validator said two different things in one vote. Signatures are r, s, v over the ballots' digests.
    function accuse(
        Ballot calldata first,
        bytes calldata firstSignature,
        Ballot calldata second,
        bytes calldata secondSignature
    ) external;

    /// @notice Stops being drawn, or validating; the stake can be withdrawn after the unbonding time.
    function unbond() external;

    /// @notice Takes the stake back.
    function withdraw() external;

    /// @notice Asks for an inference on inputs that are blobs of a hub, named by their root.
    /// The value sent is the most that is paid; what is not needed comes back at settlement.
    /// @param level 0: one staked node signs; 0x0100 + n: n nodes agree bit for bit
    /// @param deadline height of the last block in which commitments are waited for; 0 for none
    function post(bytes32 model, bytes32 inputs, uint64 seed, uint16 level, uint64 deadline)
        external
        payable
        returns (bytes32 job);

    /// @notice Asks for an inference on the given tensors and, with `callbackGas`, to be told in a later block how it ended:
    /// `IInferenceCallback.onInference` of the caller is called with that much gas, paid now out of the value sent.
    /// @param tensors named tensors in the model's order, encoded as `isobitV1` (see the library Tensors)
    function request(
        bytes32 model,
        bytes calldata tensors,
        uint64 seed,
        uint16 level,
        uint64 deadline,
        uint64 callbackGas
    ) external payable returns (bytes32 job);

    /// @notice Puts tensors on the ledger by their root: anyone can, as the root says that they are the right ones.
    function provide(bytes calldata tensors) external returns (bytes32 root);

    /// @notice Puts a published model's manifest on the ledger: its inputs and outputs, by which numbers become tensors. Anyone
    /// can, as the model's address says that it is the right one.
    function describe(bytes calldata manifest) external;

    /// @notice Commits a drawn node to its receipt.
    function commit(bytes32 job, bytes32 commitment) external;

    /// @notice Opens a commitment.
    function reveal(
        bytes32 job,
        bytes32 outputs,
        uint16 failure,
        uint64 cost,
        bytes calldata receipt,
        bytes32 salt
    ) external;

    /// @notice What to send with a request so that a run of `cost` units can be paid in full, callback included.
    function quote(bytes32 model, uint64 cost, uint16 level, uint64 callbackGas) external view returns (uint256 value);

    /// @notice How a job stands.
    function answer(bytes32 job) external view returns (Answer memory);

    /// @notice The job that `requester` posts next.
    function nextJob(address requester) external view returns (bytes32 job);

    /// @notice A set of tensors on the ledger; empty if nobody has provided it.
    function tensorsOf(bytes32 root) external view returns (bytes memory tensors);

    /// @notice A model's owner (zero if it is not published), name, URI and fee.
    function modelOf(bytes32 model)
        external
        view
        returns (address owner, string memory name, string memory uri, uint256 unitFee);

    /// @notice A model's manifest; empty if nobody has put it on the ledger.
    function manifestOf(bytes32 model) external view returns (bytes memory manifest);

    /// @notice The model that a name stands for; zero if none.
    function modelNamed(string calldata name) external view returns (bytes32 model);

    /// @notice Who votes on the next block, and with what weight.
    function validators() external view returns (address[] memory validators, uint64[] memory weights);

    /// @notice A node's stake (zero if it has not joined), the time from which it can be withdrawn (zero while active), and its jobs in progress.
    function nodeOf(address node) external view returns (uint256 stake, uint64 leaves, uint64 jobs);
}

/// @notice What a contract that asks for a callback has.
interface IInferenceCallback {
    /// @notice How a job of this contract ended. Only believe it from the ledger's address. If it reverts or runs out of gas,
    /// the job stays settled and `IIsobit.answer` still tells.
    function onInference(bytes32 job, bool settled, uint16 failure, bytes calldata tensors) external;
}
