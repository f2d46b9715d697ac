// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.20;

/// @notice What is run.
interface IWorkflow {
    function run() external;
}

/// @title Workflows that are run again and again, as OpenGradient's SDK registers them.
/// @notice It is at 0x7179724De4e7FF9271FA40C0337c7f90C0508eF6 on every Isobit chain, where the SDK looks for it. Anybody may run what is
/// due, and pays the gas; `isobit up --keeper` does.
contract WorkflowScheduler {
    /// @dev Most tasks, least time between two runs, longest life of a task, and gas of a run.
    uint256 private constant MAX_TASKS = 1000;
    uint256 private constant MIN_FREQUENCY = 10 seconds;
    uint256 private constant MAX_LIFE = 366 days;
    uint256 private constant RUN_GAS = 10_000_000;

    struct Task {
        address user;
        address contractAddress;
        uint256 endTime;
        uint256 frequency;
    }

    Task[] private _tasks;
    /// @notice When a contract's task is run next, in seconds since 1970; 0 if it has none.
    mapping(address => uint256) public nextRun;

    event Registered(address indexed user, address indexed contractAddress, uint256 endTime, uint256 frequency);
    event Ran(address indexed contractAddress, bool succeeded);
    event Ended(address indexed contractAddress);

    /// @notice A task that cannot be.
    error InvalidTask(string why);
    /// @notice There is none, or it is not due.
    error NotDue(address contractAddress);

    /// @notice Has `run()` of a contract called every `frequency` seconds until `endTime`, in seconds since 1970.
    function registerTask(address contractAddress, uint256 endTime, uint256 frequency) external {
        if (contractAddress.code.length == 0) revert InvalidTask("there is no contract at this address");
        if (nextRun[contractAddress] != 0) revert InvalidTask("it is registered already");
        if (frequency < MIN_FREQUENCY) revert InvalidTask("a task is run every 10 seconds at most");
        if (endTime <= block.timestamp || endTime > block.timestamp + MAX_LIFE) {
            revert InvalidTask("it ends in the past, or in more than a year");
        }
        if (_tasks.length >= MAX_TASKS) revert InvalidTask("there are 1000 tasks; some must end first");
        _tasks.push(Task(msg.sender, contractAddress, endTime, frequency));
        nextRun[contractAddress] = block.timestamp;
        emit Registered(msg.sender, contractAddress, endTime, frequency);
    }

    /// @notice All tasks that have not ended.
    function getAllTasks() external view returns (Task[] memory) {
        return _tasks;
    }

    /// @notice The numbers of the tasks that are due at a time.
    function due(uint256 time) external view returns (uint256[] memory numbers) {
        uint256 count = 0;
        numbers = new uint256[](_tasks.length);
        for (uint256 i = 0; i < _tasks.length; i++) {
            if (nextRun[_tasks[i].contractAddress] <= time) numbers[count++] = i;
        }
        assembly {
            mstore(numbers, count)
        }
    }

    /// @notice Runs a task that is due; one whose time is over ends. What the workflow does wrong is its own affair.
    function execute(uint256 number) external {
        Task memory task = _tasks[number];
        if (nextRun[task.contractAddress] > block.timestamp) revert NotDue(task.contractAddress);
        if (block.timestamp > task.endTime) {
            delete nextRun[task.contractAddress];
            _tasks[number] = _tasks[_tasks.length - 1];
            _tasks.pop();
            emit Ended(task.contractAddress);
            return;
        }
        nextRun[task.contractAddress] = block.timestamp + task.frequency;
        bool succeeded;
        try IWorkflow(task.contractAddress).run{gas: RUN_GAS}() {
            succeeded = true;
        } catch {
            // Not enough gas here is the caller's fault: it is due still.
            require(gasleft() > RUN_GAS / 63, "too little gas for a run");
        }
        emit Ran(task.contractAddress, succeeded);
    }
}
